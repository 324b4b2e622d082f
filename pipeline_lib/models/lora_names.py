"""What a family calls the layers of a LoRA in a file, and which of those names other readers know."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline_lib.errors import InputError

Layers = Mapping[str, tuple[Tensor, Tensor]]
"""diffusers module path to (down (r, in), up (out, r)), float32."""

DOWN, UP = ".lora_A.weight", ".lora_B.weight"

# The pairs of suffixes that ComfyUI looks for: comfy/weight_adapter/lora.py at 0323d874, LoRAAdapter.load.
COMFY_SUFFIXES = (".lora_A.weight", ".lora_B.weight", ".lora_up.weight", ".lora_down.weight")


class LoraNames(Protocol):
    """A family's LoRA file format. Alpha equals the rank and no `.alpha` tensor stands in a file."""

    def write(self, layers: Layers) -> dict[str, Tensor]:
        """Layers as the tensors of a file, by key.

        Raises InputError for a layer that the format has no name for.
        """

    def read(self, tensors: Mapping[str, Tensor], what: str) -> dict[str, tuple[Tensor, Tensor]]:
        """The inverse of :meth:`write`, values checked by :func:`checked_pair`.

        Args:
            tensors: of a file.
            what: names the file in errors.

        Returns:
            Layers.

        Raises:
            InputError: a key that :meth:`write` never makes, one half of a layer, or values that are not finite.
        """

    def comfy_keys(self, denoiser: nn.Module) -> set[str]:
        """Every LoRA key that ComfyUI's key map reads for a model of this depth; empty where it has no such model."""


@dataclass(frozen=True)
class RenamedBlocks:
    """A format in which every layer of every block has one name of its own: `LoraNames` for most families.

    Attributes:
        prefix: of every key, e.g. "diffusion_model.".
        blocks: path of the list of blocks, the same in diffusers and in the file.
        names: layer inside a block, diffusers' name to the file's.
        comfy_block: modules with a weight inside a block of ComfyUI's model.
        comfy_rest: its other modules with a weight.
    """

    prefix: str
    blocks: str
    names: Mapping[str, str]
    comfy_block: Sequence[str] = ()
    comfy_rest: Sequence[str] = ()

    def write(self, layers: Layers) -> dict[str, Tensor]:
        """See :class:`LoraNames`."""
        tensors: dict[str, Tensor] = {}
        for path, (down, up) in layers.items():
            name = self.prefix + self.original_name(path)
            tensors[name + DOWN], tensors[name + UP] = down, up
        return tensors

    def read(self, tensors: Mapping[str, Tensor], what: str) -> dict[str, tuple[Tensor, Tensor]]:
        """See :class:`LoraNames`."""
        ours = {theirs: own for own, theirs in self.names.items()}
        pattern = re.compile(
            rf"{re.escape(self.prefix)}({re.escape(self.blocks)}\.\d+)\.(.+)\.lora_[AB]\.weight", re.ASCII
        )
        layers: dict[str, tuple[Tensor, Tensor]] = {}
        for key in sorted(tensors):
            found = pattern.fullmatch(key)
            if found is None or found[2] not in ours:
                raise InputError(f"{what} has a key that is none of our exports'", got=key)
            path = f"{found[1]}.{ours[found[2]]}"
            if path not in layers:
                layers[path] = checked_pair(tensors, key.removesuffix(DOWN).removesuffix(UP), what)
        return layers

    def comfy_keys(self, denoiser: nn.Module) -> set[str]:
        """See :class:`LoraNames`; only the number of blocks counts."""
        depth = len(list(denoiser.get_submodule(self.blocks).children()))
        modules = [f"{self.blocks}.{block}.{name}" for block in range(depth) for name in self.comfy_block]
        return {f"{self.prefix}{module}{end}" for module in [*modules, *self.comfy_rest] for end in COMFY_SUFFIXES}

    def original_name(self, path: str) -> str:
        """The file's name of a module, from its path in the diffusers model.

        Raises InputError for a module that is no layer of a block.
        """
        block = re.fullmatch(rf"({re.escape(self.blocks)}\.\d+)\.(.+)", path)
        if block is None or block[2] not in self.names:
            raise InputError(f"a LoRA of {path} cannot be exported", expected="linear layers of the transformer blocks")
        return f"{block[1]}.{self.names[block[2]]}"


def checked_pair(tensors: Mapping[str, Tensor], name: str, what: str) -> tuple[Tensor, Tensor]:
    """Both factors of a layer, float32.

    Args:
        tensors: of a file.
        name: of the layer in it, without suffix.
        what: names the file in errors.

    Returns:
        down (r, in) and up (out, r).

    Raises:
        InputError: one half is missing, shapes do not go together, or values are not finite floats.
    """
    down, up = tensors.get(name + DOWN), tensors.get(name + UP)
    if down is None or up is None:
        raise InputError(f"{what} lacks one half of {name}", expected="lora_A and lora_B")
    if down.dim() != 2 or up.dim() != 2 or down.shape[0] != up.shape[1] or not down.shape[0]:
        raise InputError(f"{what} has wrong shapes in {name}", got=f"{tuple(down.shape)}, {tuple(up.shape)}")
    for factor in (down, up):
        if not factor.is_floating_point() or not torch.isfinite(factor.float()).all():
            raise InputError(f"{what} has values in {name} that are not finite floats")
    return down.float(), up.float()
