"""LoRA files that load in the stock loaders: one plain LoRA, original module names, no scaling left to do.

For Wan, `diffusion_model.` + the original module names + `lora_A` / `lora_B` is read by diffusers
(`loaders/lora_conversion_utils.py`, `_convert_non_diffusers_wan_lora_to_diffusers`) and by ComfyUI
(`comfy/lora.py`, `model_lora_keys_unet`). Alpha equals the rank and no `.alpha` tensor is written, so
that no reader scales a second time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline_lib.errors import InputError
from pipeline_lib.models.triple import LoraTriple
from pipeline_lib.storage.tensors import read_tensors, save_tensors

PREFIX = "diffusion_model."
PROVENANCE_PREFIX = "mannerism."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_PICKLES = (".pt", ".pth", ".ckpt", ".bin")
_MAX_BYTES = 8 * 2**30

# diffusers' names inside a block to Wan's own; the block's number stands in front of both.
_WAN_NAMES = {
    f"{ours}.{linear}": f"{theirs}.{letter}"
    for ours, theirs in (("attn1", "self_attn"), ("attn2", "cross_attn"))
    for linear, letter in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "o"))
} | {"ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2"}
_WAN_MODULES = {original: ours for ours, original in _WAN_NAMES.items()}

# Modules with a weight of ComfyUI's Wan text-to-video model: comfy/ldm/wan/model.py at 01c4fa4c
# (WanSelfAttention, WanT2VCrossAttention, WanAttentionBlock, Head, WanModel).
_COMFY_WAN_BLOCK = (
    *(
        f"{attention}.{part}"
        for attention in ("self_attn", "cross_attn")
        for part in ("q", "k", "v", "o", "norm_q", "norm_k")
    ),
    "norm3",
    "ffn.0",
    "ffn.2",
)
_COMFY_WAN_REST = (
    "patch_embedding",
    "text_embedding.0",
    "text_embedding.2",
    "time_embedding.0",
    "time_embedding.2",
    "time_projection.1",
    "head.head",
)
# The pairs of suffixes that ComfyUI looks for: comfy/weight_adapter/lora.py at 0323d874, LoRAAdapter.load.
_COMFY_SUFFIXES = (".lora_A.weight", ".lora_B.weight", ".lora_up.weight", ".lora_down.weight")


@dataclass(frozen=True)
class LoraFile:
    """A LoRA as read: diffusers module path to (down (r, in), up (out, r)), and its provenance."""

    layers: Mapping[str, tuple[Tensor, Tensor]]
    provenance: Mapping[str, str]


def lora_tensors(triple: LoraTriple, *, family: str, identity: float = 1.0, motion: float = 1.0) -> dict[str, Tensor]:
    """The tensors of an export, by key, float32.

    Args:
        triple: the trained factors.
        family: of the base, e.g. "wan".
        identity: strength of the coefficients.
        motion: strength of the motion residual.

    Returns:
        Key to tensor, ready for `load_lora_weights` or a file.

    Raises:
        InputError: a family or a layer that the format has no name for.
    """
    _require_wan(family)
    tensors: dict[str, Tensor] = {}
    for path, (down, up) in triple.merged(identity, motion).items():
        name = PREFIX + original_name(path)
        tensors[name + _DOWN] = down.float().contiguous()
        tensors[name + _UP] = up.float().contiguous()
    if not tensors:
        raise InputError("there is no trained layer to export")
    return tensors


def write_lora(
    triple: LoraTriple,
    path: Path,
    *,
    family: str,
    identity: float = 1.0,
    motion: float = 1.0,
    provenance: Mapping[str, object],
) -> Path:
    """Writes one plain LoRA file.

    Args:
        triple: the trained factors.
        path: ends in `.safetensors`.
        family: of the base, e.g. "wan".
        identity: strength of the coefficients, baked in.
        motion: strength of the motion residual, baked in.
        provenance: method, stage, base, digests, trigger, …; written as header keys `mannerism.<name>`.

    Returns:
        The path.
    """
    tensors = lora_tensors(triple, family=family, identity=identity, motion=motion)
    facts = {"family": family, "identity_strength": identity, "motion_strength": motion, "rank": triple.rank}
    header = {f"{PROVENANCE_PREFIX}{name}": str(value) for name, value in {**provenance, **facts}.items()}
    save_tensors(path, tensors, {"format": "pt", **header})
    return path


def read_lora(path: Path, denoiser: nn.Module | None = None) -> LoraFile:
    """Reads a LoRA that :func:`write_lora` wrote, and nothing else.

    Args:
        path: a `.safetensors` file.
        denoiser: when given, every layer must be one of its linear layers, in its shape.

    Returns:
        The checked layers, float32 on the CPU.

    Raises:
        InputError: a pickle, an unreadable or huge file, unknown keys, wrong shapes, values not finite.
    """
    tensors, header = _read_safetensors(path)
    layers: dict[str, tuple[Tensor, Tensor]] = {}
    for key in sorted(tensors):
        module = _module_of(key, path)
        if module not in layers:
            layers[module] = _pair(tensors, key, path)
    if not layers:
        raise InputError(f"{path} holds no LoRA layers")
    if denoiser is not None:
        check_fit(layers, denoiser, str(path))
    own = {
        name.removeprefix(PROVENANCE_PREFIX): text
        for name, text in header.items()
        if name.startswith(PROVENANCE_PREFIX)
    }
    return LoraFile(layers, own)


def check_fit(layers: Mapping[str, tuple[Tensor, Tensor]], denoiser: nn.Module, what: str) -> None:
    """Refuses LoRA layers that are not linear layers of a denoiser, in their shapes.

    Args:
        layers: module path to (down (r, in), up (out, r)).
        denoiser: may carry adapters already.
        what: names the LoRA in the error.

    Raises:
        InputError: names the first layer that does not fit.
    """
    shapes = {
        name.removesuffix(".base_layer"): tuple(module.weight.shape)  # PEFT wraps a layer it has adapted
        for name, module in denoiser.named_modules()
        if isinstance(module, nn.Linear)
    }
    for module, (down, up) in layers.items():
        fits = (up.shape[0], down.shape[1])
        if shapes.get(module) != fits:
            expected = str(shapes[module]) if module in shapes else "no such layer"
            raise InputError(f"{what} does not fit this base at {module}", got=str(fits), expected=expected)


def comfy_keys(family: str, transformer: nn.Module) -> set[str]:
    """Every LoRA key that ComfyUI's key map reads for a model of this depth.

    Args:
        family: e.g. "wan".
        transformer: the diffusers denoiser; only its number of blocks counts.

    Returns:
        Keys as they stand in a file.
    """
    _require_wan(family)
    depth = len(list(transformer.get_submodule("blocks").children()))
    modules = [f"blocks.{block}.{name}" for block in range(depth) for name in _COMFY_WAN_BLOCK]
    return {f"{PREFIX}{module}{suffix}" for module in [*modules, *_COMFY_WAN_REST] for suffix in _COMFY_SUFFIXES}


def original_name(path: str) -> str:
    """Wan's own name of a module, from its path in the diffusers transformer."""
    block = re.fullmatch(r"(blocks\.\d+)\.(.+)", path)
    if block is None or block[2] not in _WAN_NAMES:
        raise InputError(f"a LoRA of {path} cannot be exported", expected="linear layers of the transformer blocks")
    return f"{block[1]}.{_WAN_NAMES[block[2]]}"


def _require_wan(family: str) -> None:
    if family != "wan":
        raise InputError("LoRA export does not know this family", got=family, expected="wan")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if path.suffix in _PICKLES:
        raise InputError(f"{path} is a pickle, which can run code when opened", fix="convert it to .safetensors")
    if path.suffix != ".safetensors" or not path.is_file():
        raise InputError(f"there is no LoRA file at {path}", expected="a .safetensors file")
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path} is too large for a LoRA", got=f"{path.stat().st_size} bytes")
    return read_tensors(path)


def _module_of(key: str, path: Path) -> str:
    found = re.fullmatch(rf"{re.escape(PREFIX)}(blocks\.\d+)\.(.+)\.lora_[AB]\.weight", key)
    if found is None or found[2] not in _WAN_MODULES:
        raise InputError(f"{path} has a key that is none of our exports'", got=key)
    return f"{found[1]}.{_WAN_MODULES[found[2]]}"


def _pair(tensors: Mapping[str, Tensor], key: str, path: Path) -> tuple[Tensor, Tensor]:
    name = key.removesuffix(_DOWN).removesuffix(_UP)
    down, up = tensors.get(name + _DOWN), tensors.get(name + _UP)
    if down is None or up is None:
        raise InputError(f"{path} lacks one half of {name}", expected="lora_A and lora_B")
    if down.dim() != 2 or up.dim() != 2 or down.shape[0] != up.shape[1]:
        raise InputError(f"{path} has wrong shapes in {name}", got=f"{tuple(down.shape)}, {tuple(up.shape)}")
    for factor in (down, up):
        if not factor.is_floating_point() or not torch.isfinite(factor).all():
            raise InputError(f"{path} has values in {name} that are not finite floats")
    return down.float(), up.float()
