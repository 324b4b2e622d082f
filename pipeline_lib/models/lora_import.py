"""LoRA files of others, brought to diffusers' module paths: diffusers, PEFT, ComfyUI and kohya names.

A file is read whole or not at all: a key that is not understood, a layer that the base does not have, or a value that
is not finite is an error that names it. (The stock loaders drop such keys with a warning, or load at another scale.)
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline_lib.errors import InputError
from pipeline_lib.models.families import family_named
from pipeline_lib.models.lora_export import LoraFile, check_fit, open_lora_file, provenance_of
from pipeline_lib.models.lora_file import METADATA, in_peft_names
from pipeline_lib.models.lora_names import DOWN, UP, LoraNames, checked_pair

_ROLES = {
    ".lora_A.weight": "down",
    ".lora_A.default.weight": "down",
    ".lora_down.weight": "down",
    ".lora.down.weight": "down",
    ".lora_B.weight": "up",
    ".lora_B.default.weight": "up",
    ".lora_up.weight": "up",
    ".lora.up.weight": "up",
    ".alpha": "alpha",
}
_OTHER_KINDS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    ".hada_": "LoHa",
    ".lokr_": "LoKr",
    ".oft_": "OFT",
    ".diff": "a full difference of weights",
    ".lora_mid": "a LoRA of convolutions",
}
_TEXT_ENCODERS = ("lora_te", "text_encoder", "text_model")
_FIX = "use a plain LoRA of the attention and feed-forward layers, trained for this base's family and size"
# What keys of a LoRA look like, for a message about the wrong file; the first that fits counts.
_SIGNS = {
    "an image model": r"(^|[._])(down|up|mid|input|output|middle)_blocks?[._]",
    "hunyuan or flux": r"(^|[._])(double|single)_blocks[._]\d|single_transformer_blocks",
    "ltx or cogvideox": r"(^|[._])transformer_blocks[._]\d+[._]attn[12][._]",
    "wan": r"(^|[._])blocks[._]\d+[._](self_attn|cross_attn|attn[12]|ffn)[._]",
}
_PATH_PREFIXES = ("", "transformer.", "diffusion_model.", "base_model.model.", "unet.")
KOHYA_PREFIXES = ("lora_unet_", "lora_transformer_")


@dataclass
class FileLayer:
    """What a file says of one layer, under whatever name; None: nothing."""

    down: Tensor | None = None
    up: Tensor | None = None
    alpha: Tensor | None = None


@dataclass(frozen=True)
class Scaling:
    """PEFT's scale of a layer that has no alpha of its own in the file.

    Attributes:
        alpha: None: alpha equals the rank.
        patterns: alpha of the modules whose path ends so (PEFT's `get_pattern_key`).
        rank_stabilised: alpha over the root of the rank.
    """

    alpha: float | None = None
    patterns: Mapping[str, float] = field(default_factory=dict)
    rank_stabilised: bool = False

    def alpha_of(self, path: str) -> float | None:
        """A layer's alpha; None where it equals the rank."""
        own = [value for key, value in self.patterns.items() if path == key or path.endswith(f".{key}")]
        return own[0] if own else self.alpha

    def scale(self, path: str, rank: int) -> float:
        """What the product of a layer's factors is multiplied by."""
        alpha = self.alpha_of(path)
        return 1.0 if alpha is None else alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


def import_lora(path: Path, family: str, denoiser: nn.Module) -> LoraFile:
    """Reads a LoRA of any of the common trainers.

    Args:
        path: a `.safetensors` file.
        family: of the base, e.g. "wan".
        denoiser: of the base; it may carry adapters already.

    Returns:
        Its layers by diffusers' module path, float32 on the CPU, scales baked into `up`; and the provenance, if the
        file is one of ours.

    Raises:
        InputError: a pickle, an unreadable or huge file, another kind of adapter, a LoRA of a text encoder, or
            anything that does not fit the base.
    """
    tensors, header = open_lora_file(path)
    provenance = provenance_of(header)
    if provenance.get("family", family) != family:
        raise InputError(f"{path} is a LoRA of the family {provenance['family']}", expected=family, fix=_FIX)
    names = family_named(family).names_for("comfyui")
    native = {key.removesuffix(DOWN) for key in names.comfy_keys(denoiser) if key.endswith(DOWN)}
    aliases = dict(_aliases(denoiser, native))
    known = _adaptable(names, denoiser)
    scaling = scaling_of(tensors, header, path)
    layers: dict[str, tuple[Tensor, Tensor]] = {}
    fused: dict[str, Tensor] = {}
    for stem, layer in grouped_layers(tensors, path).items():
        target = aliases.get(stem)
        if target is None:
            like = f"{stem}, as in {looks_like(stem)}" if looks_like(stem) else stem
            raise InputError(
                f"{path} has a layer that this base does not have", got=like, expected=_example(aliases), fix=_FIX
            )
        if target in native and target not in known:
            raise InputError(f"{path} changes more than linear layers of the blocks", got=stem, fix=_FIX)
        down, up = layer_factors(layer, stem, scaling, str(path))
        if target in layers or target + DOWN in fused:
            raise InputError(f"{path} has the layer {target} twice", got=stem)
        if target in native:
            fused |= {target + DOWN: down, target + UP: up}
        else:
            layers[target] = (down, up)
    for target, pair in names.read(fused, str(path)).items():
        if target in layers:
            raise InputError(f"{path} has the layer {target} twice")
        layers[target] = pair
    if not layers:
        raise InputError(f"{path} holds no LoRA layers")
    check_fit(layers, denoiser, str(path))
    return LoraFile(layers, provenance)


def _linear_layers(denoiser: nn.Module) -> dict[str, nn.Linear]:
    """By path in the bare denoiser: PEFT's own layers are left out, its wrappers' names too."""
    return {
        name.removesuffix(".base_layer"): module
        for name, module in denoiser.named_modules()
        if isinstance(module, nn.Linear) and ".lora_" not in name
    }


def _adaptable(names: LoraNames, denoiser: nn.Module) -> set[str]:
    """The file's names of those layers that its format has a name for; ComfyUI knows more, such as norms."""
    found: set[str] = set()
    for path, linear in _linear_layers(denoiser).items():
        pair = torch.zeros(1, linear.in_features), torch.zeros(linear.out_features, 1)
        with suppress(InputError):  # outside of the blocks
            found |= {key.removesuffix(DOWN) for key in names.write({path: pair}) if key.endswith(DOWN)}
    return found


def looks_like(stem: str) -> str:
    """The family that a layer's name in a file is typical of, in words; empty where it is of none."""
    return next((family for family, sign in _SIGNS.items() if re.search(sign, stem)), "")


def _aliases(denoiser: nn.Module, native: set[str]) -> Iterator[tuple[str, str]]:
    """Every stem that a file may use, to the diffusers path or to the family's own name in a file."""
    for own in native:
        stem = own.partition(".")[2]  # after the family's prefix
        yield from ((prefix + stem, own) for prefix in (*_PATH_PREFIXES, "model.diffusion_model."))
        yield from ((prefix + stem.replace(".", "_"), own) for prefix in KOHYA_PREFIXES)
    for path in _linear_layers(denoiser):  # after the others: a layer that has one name in both is read as it is
        yield from ((prefix + path, path) for prefix in _PATH_PREFIXES)
        yield from ((prefix + path.replace(".", "_"), path) for prefix in KOHYA_PREFIXES)


def grouped_layers(tensors: Mapping[str, Tensor], path: Path) -> dict[str, FileLayer]:
    """The layers of a file by the stem of their keys, whatever base they are for.

    Args:
        tensors: all of the file.
        path: of the file, for the error.

    Returns:
        Stem to what there is of the layer; values are not looked at.

    Raises:
        InputError: a key that is none of a plain LoRA's, or one half of a layer twice.
    """
    layers: dict[str, FileLayer] = {}
    for key in sorted(tensors):
        if key.startswith(_TEXT_ENCODERS):
            raise InputError(f"{path} adapts a text encoder too, which stays as it is here", got=key)
        suffix = next((suffix for suffix in _ROLES if key.endswith(suffix)), None)
        if suffix is None:
            kind = next((kind for part, kind in _OTHER_KINDS.items() if part in key), None)
            what = f"is {kind}, not a plain LoRA" if kind else "has a key that is none of a LoRA's"
            pairs = "lora_A and lora_B, or lora_down and lora_up"
            raise InputError(f"{path} {what}", got=key, expected=pairs, fix=_FIX)
        layer, role = layers.setdefault(key.removesuffix(suffix), FileLayer()), _ROLES[suffix]
        if getattr(layer, role) is not None:
            raise InputError(f"{path} has one half of a layer twice", got=key)
        setattr(layer, role, tensors[key])
    return layers


def layer_factors(layer: FileLayer, stem: str, scaling: Scaling, what: str) -> tuple[Tensor, Tensor]:
    """Both factors of a layer, its scale baked into the second.

    Args:
        layer: of the file.
        stem: its name there.
        scaling: for layers that have no alpha of their own.
        what: names the file in errors.

    Returns:
        down (r, in) and up (out, r), float32.

    Raises:
        InputError: a half is missing, shapes do not go together, or values are no finite numbers.
    """
    halves = {stem + end: half for end, half in ((DOWN, layer.down), (UP, layer.up)) if half is not None}
    down, up = checked_pair(halves, stem, what)
    rank = down.shape[0]
    if layer.alpha is None:
        return down, up * scaling.scale(stem, rank)
    alpha = layer.alpha
    number = alpha.numel() == 1 and alpha.dtype != torch.bool and not alpha.is_complex()
    if not number or not math.isfinite(float(alpha)):
        raise InputError(f"{what} has an alpha for {stem} that is no number", got=f"{alpha.dtype} {tuple(alpha.shape)}")
    return down, up * (float(alpha) / rank)


def scaling_of(tensors: Mapping[str, Tensor], header: Mapping[str, str], path: Path) -> Scaling:
    """The scale of those layers of a file that have no alpha of their own.

    Args:
        tensors: all of the file.
        header: its strings.
        path: of the file; PEFT's settings are looked for beside it.

    Returns:
        The scale; that of alpha equal to the rank where nothing is said.

    Raises:
        InputError: settings that are missing or cannot be read, or those of another kind of adapter.
    """
    return _scaling(_settings(tensors, header, path), path)


def _settings(tensors: Mapping[str, Tensor], header: Mapping[str, str], path: Path) -> str:
    """PEFT's settings as JSON: of the header, or of the file beside a LoRA in PEFT's own names; empty: none."""
    if METADATA in header or not any(map(in_peft_names, tensors)):
        return header.get(METADATA, "")
    beside = path.parent / "adapter_config.json"
    try:
        return beside.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} has PEFT's names, but its scale stands in {beside.name}, which cannot be read", got=str(error)
        ) from error


def _scaling(text: str, path: Path) -> Scaling:
    if not text:
        return Scaling()
    try:
        told = json.loads(text)
        owners = {name.rpartition(".")[0] for name in told}
        if len(owners) > 1:
            raise InputError(f"{path} has settings of several models in its header", got=", ".join(sorted(owners)))
        settings: dict[str, Any] = {name.rpartition(".")[2]: value for name, value in told.items()}
        alpha, patterns = settings.get("lora_alpha"), settings.get("alpha_pattern") or {}
        scaling = Scaling(
            None if alpha is None else float(alpha),
            {str(key): float(value) for key, value in patterns.items()},
            bool(settings.get("use_rslora")),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} has adapter settings in its header that cannot be read", got=str(error)) from error
    if settings.get("use_dora"):
        raise InputError(f"{path} is DoRA, not a plain LoRA")
    if odd := [key for key in scaling.patterns if not re.fullmatch(r"[\w.]+", key)]:
        raise InputError(f"{path} scales layers by a pattern", got=odd[0], expected="names of modules")
    if not all(math.isfinite(value) for value in (scaling.alpha or 0.0, *scaling.patterns.values())):
        raise InputError(f"{path} has an alpha in its header that is no number")
    return scaling


def _example(aliases: Mapping[str, str]) -> str:
    return f"one like {next(iter(aliases), 'none')}"
