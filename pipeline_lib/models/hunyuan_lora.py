"""HunyuanVideo's LoRA names: `transformer.` and the original module names, with the fused layers of the original.

diffusers: `loaders/lora_conversion_utils.py`, `_convert_hunyuan_video_lora_to_diffusers`, which runs when a key has
`img_attn_qkv` in it. It gives every part of a fused layer the whole A and its own rows of B; so with A stacked and B
block-diagonal each part computes what it computed alone. Ranks then differ between layers, and with no alphas in a file
diffusers (from 0.42) and ComfyUI scale each layer by 1.

ComfyUI: `comfy/lora.py` at 17358c8f, `model_lora_keys_unet` (HunyuanVideo; both `transformer.` and `diffusion_model.`).
Its modules with a weight are those of `comfy/ldm/hunyuan_video/model.py` at 040a3243 and `comfy/ldm/flux/layers.py` at
00545103 (DoubleStreamBlock, SingleStreamBlock), with `.0` and `.2` of a feed-forward written `fc1` and `fc2`.

Both prefixes load in both readers; `transformer.` is what HunyuanVideo's own trainers write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline_lib.errors import InputError
from pipeline_lib.models.lora_names import COMFY_SUFFIXES, DOWN, UP, Layers, checked_pair

WIDTH = 3072
"""Of every published model. diffusers' reader cuts `linear1` there whatever the model's width is, so a model of another
width (the tiny ones of tests) has its file in diffusers' own names, which ComfyUI does not know."""

_PREFIX = "transformer."
# The file's layer to the layers of diffusers that it is made of, in the order of its rows.
_DOUBLE: dict[str, tuple[str, ...]] = {
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn_proj": ("attn.to_out.0",),
    "img_mlp.fc1": ("ff.net.0.proj",),
    "img_mlp.fc2": ("ff.net.2",),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn_proj": ("attn.to_add_out",),
    "txt_mlp.fc1": ("ff_context.net.0.proj",),
    "txt_mlp.fc2": ("ff_context.net.2",),
}
_SINGLE: dict[str, tuple[str, ...]] = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
}
_LISTS = {"double_blocks": ("transformer_blocks", _DOUBLE), "single_blocks": ("single_transformer_blocks", _SINGLE)}
_PLACES = {
    (ours, own): (blocks, name)
    for blocks, (ours, names) in _LISTS.items()
    for name, parts in names.items()
    for own in parts
}
_MODULATION = {"double_blocks": ("img_mod.linear", "txt_mod.linear"), "single_blocks": ("modulation.linear",)}
_EMBEDDERS = ("time_in", "vector_in", "guidance_in", "txt_in.t_embedder", "txt_in.c_embedder")
_REFINER = ("self_attn_qkv", "self_attn_proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1", "norm1", "norm2")
_COMFY_REST = (
    "img_in.proj",
    *(f"{embedder}.{layer}" for embedder in _EMBEDDERS for layer in ("in_layer", "out_layer")),
    "txt_in.input_embedder",
    *(f"txt_in.individual_token_refiner.blocks.{block}.{layer}" for block in range(2) for layer in _REFINER),
    "final_layer.linear",
    "final_layer.adaLN_modulation.1",
)
_FILE_LAYER = re.compile(r"(double_blocks|single_blocks)\.(\d+)\.(.+)", re.ASCII)
_OWN_LAYER = re.compile(r"(transformer_blocks|single_transformer_blocks)\.(\d+)\.(.+)", re.ASCII)


@dataclass(frozen=True)
class HunyuanNames:
    """The names of this module; see :class:`pipeline_lib.models.lora_names.LoraNames`."""

    def write(self, layers: Layers) -> dict[str, Tensor]:
        """See the protocol.

        A part of a fused layer that is not there becomes zeros, and so does the first block's `img_attn_qkv`, without
        which diffusers would not see whose names these are.
        """
        if not layers:
            return {}
        places = {path: _file_place(path) for path in layers}
        if stray := [path for path, place in places.items() if not place]:
            raise InputError(
                f"a LoRA of {stray[0]} cannot be exported", expected="linear layers of the transformer blocks"
            )
        if _width(layers) != WIDTH:
            return {_PREFIX + path + end: factor for path in layers for end, factor in _ends(layers[path])}
        tensors: dict[str, Tensor] = {}
        for name in dict.fromkeys(["double_blocks.0.img_attn_qkv", *places.values()]):
            own = [layers.get(path) for path in _own_paths(name)]
            pair = own[0] if len(own) == 1 else _fused(own, name)
            assert pair is not None
            tensors |= {_PREFIX + name + end: factor for end, factor in _ends(pair)}
        return tensors

    def read(self, tensors: Mapping[str, Tensor], what: str) -> dict[str, tuple[Tensor, Tensor]]:
        """See the protocol; fused layers of other trainers, whose parts share one A, are read too."""
        layers: dict[str, tuple[Tensor, Tensor]] = {}
        for stem in dict.fromkeys(key.removesuffix(DOWN).removesuffix(UP) for key in sorted(tensors)):
            name = stem.removeprefix(_PREFIX)
            paths = _own_paths(name) or ([name] if _file_place(name) else [])
            if not stem.startswith(_PREFIX) or not paths or stem in tensors:
                raise InputError(f"{what} has a key that is none of our exports'", got=stem)
            found = _split(paths, checked_pair(tensors, stem, what), f"{what} at {stem}")
            if twice := layers.keys() & found.keys():
                raise InputError(f"{what} has a layer twice", got=min(twice))
            layers |= found
        return layers

    def comfy_keys(self, denoiser: nn.Module) -> set[str]:
        """See the protocol; empty for a model that is not as wide as the published ones (:data:`WIDTH`)."""
        embedder = denoiser.get_submodule("x_embedder.proj")
        assert isinstance(embedder, nn.Conv3d)
        if embedder.out_channels != WIDTH:
            return set()
        modules = list(_COMFY_REST)
        for blocks, (ours, names) in _LISTS.items():
            depth = len(list(denoiser.get_submodule(ours).children()))
            modules += [f"{blocks}.{n}.{name}" for n in range(depth) for name in (*names, *_MODULATION[blocks])]
        return {f"{_PREFIX}{module}{end}" for module in modules for end in COMFY_SUFFIXES}


def _ends(pair: tuple[Tensor, Tensor]) -> list[tuple[str, Tensor]]:
    return list(zip((DOWN, UP), pair, strict=True))


def _file_place(path: str) -> str:
    """The file's layer that one of diffusers' layers goes into; empty where there is none."""
    found = _OWN_LAYER.fullmatch(path)
    if found is None:
        return ""
    blocks, name = _PLACES.get((found[1], found[3]), ("", ""))
    return name and f"{blocks}.{found[2]}.{name}"


def _own_paths(name: str) -> list[str]:
    """Diffusers' layers that a layer of the file is made of; none for an unknown name."""
    found = _FILE_LAYER.fullmatch(name)
    if found is None:
        return []
    ours, names = _LISTS[found[1]]
    return [f"{ours}.{found[2]}.{own}" for own in names.get(found[3], ())]


def _width(layers: Layers) -> int:
    """The model's, from any layer: all come from it or lead back to it."""
    path, (down, up) = next(iter(layers.items()))
    return down.shape[1] if path.endswith((".net.0.proj", ".proj_mlp")) else up.shape[0]


def _fused(parts: list[tuple[Tensor, Tensor] | None], name: str) -> tuple[Tensor, Tensor]:
    """One layer of several: A stacked, B block-diagonal."""
    there = [part for part in parts if part is not None]
    ranks = {down.shape[0] for down, _ in there} or {1}
    if len(ranks) > 1:
        raise InputError(f"the parts of {name} have different ranks", got=", ".join(map(str, sorted(ranks))))
    (rank,) = ranks
    outs = [WIDTH if part is None else part[1].shape[0] for part in parts]
    if parts[-1] is None and len(parts) == 4:
        outs[-1] = 4 * WIDTH  # the feed-forward of every published model
    filled = [part or (torch.zeros(rank, WIDTH), torch.zeros(out, rank)) for part, out in zip(parts, outs, strict=True)]
    return torch.cat([down for down, _ in filled]), torch.block_diag(*(up for _, up in filled))


def _split(paths: list[str], pair: tuple[Tensor, Tensor], what: str) -> dict[str, tuple[Tensor, Tensor]]:
    if len(paths) == 1:
        return {paths[0]: pair}
    down, up = pair
    sizes = [WIDTH] * (len(paths) - 1)
    sizes.append(up.shape[0] - sum(sizes))
    if sizes[-1] <= 0 or (len(paths) == 3 and sizes[-1] != WIDTH):
        raise InputError(f"{what}: the fused layer has a wrong size", got=f"{up.shape[0]} rows")
    rows = up.split(sizes)
    if len(down) % len(paths) == 0:
        rank = len(down) // len(paths)
        blocks = [part[:, n * rank : (n + 1) * rank] for n, part in enumerate(rows)]
        if torch.equal(torch.block_diag(*blocks), up):
            found = zip(paths, down.split(rank), blocks, strict=True)
            return {path: (a.clone(), b.clone()) for path, a, b in found if a.any() or b.any()}
    return {path: (down.clone(), part.clone()) for path, part in zip(paths, rows, strict=True)}


HUNYUAN_NAMES = HunyuanNames()
