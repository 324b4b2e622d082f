"""The trained factors: one basis, its coefficients, and the motion residual of the coefficients.

A linear layer `y = W x` becomes `W + basis (s1·coefficients + s2·residual)` when the basis is on the
output side (PEFT's `lora_B` is the basis), or `W + (s1·coefficients + s2·residual) basis` when it is on
the input side (PEFT's `lora_A` is the basis): Set-and-Sequence, Eq. 3 and 5, under the column and the
row convention. Because the basis is shared, any pair of strengths is one plain LoRA of the same rank.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from pipeline_lib.errors import InputError
from pipeline_lib.storage.tensors import read_tensors, save_tensors

Basis = Literal["output", "input"]
FORMAT = "mannerism-triple-1"
SECOND_EXPERT = "transformer_2."  # before the paths of a second denoiser's layers


@dataclass(frozen=True)
class LayerFactors:
    """Factors of one linear layer, float32 on the CPU.

    With basis "output": basis (out, r), coefficients and residual (r, in).
    With basis "input": basis (r, in), coefficients and residual (out, r).
    `residual` is None before Stage II.
    """

    basis: Tensor
    coefficients: Tensor
    residual: Tensor | None = None


@dataclass(frozen=True)
class LoraTriple:
    """The factors of all adapted layers, by module path inside the transformer.

    Paths inside the second of two experts begin with :data:`SECOND_EXPERT`.
    `scale` is alpha / rank and multiplies the product.
    """

    layers: Mapping[str, LayerFactors]
    basis: Basis
    rank: int
    scale: float = 1.0

    @property
    def has_residual(self) -> bool:
        """Whether motion was learned on its own, so that its strength has an effect."""
        return any(factors.residual is not None for factors in self.layers.values())

    @property
    def is_zero(self) -> bool:
        """Whether the basis is zero in all layers, so that no strength changes anything: words alone were learned."""
        return not any(bool(factors.basis.any()) for factors in self.layers.values())

    def merged(self, identity: float = 1.0, motion: float = 1.0) -> dict[str, tuple[Tensor, Tensor]]:
        """One plain LoRA at the given strengths.

        Args:
            identity: strength s1 of the coefficients.
            motion: strength s2 of the residual.

        Returns:
            Module path to (down (r, in), up (out, r)), float32; the scale is baked into `up`, so that
            alpha equals the rank.
        """
        return {path: self._layer(factors, identity, motion) for path, factors in self.layers.items()}

    def by_expert(self) -> dict[str, LoraTriple]:
        """One triple for each denoiser that has layers here, the high-noise one first.

        Returns:
            "" and :data:`SECOND_EXPERT`, or the one that is there, to a triple whose paths lack that prefix.
        """
        parts: dict[str, dict[str, LayerFactors]] = {}
        for prefix in ("", SECOND_EXPERT):
            for path, factors in self.layers.items():
                if path.startswith(SECOND_EXPERT) == bool(prefix):
                    parts.setdefault(prefix, {})[path.removeprefix(prefix)] = factors
        return {prefix: replace(self, layers=layers) for prefix, layers in parts.items()}

    def _layer(self, factors: LayerFactors, identity: float, motion: float) -> tuple[Tensor, Tensor]:
        mixed = identity * factors.coefficients
        if factors.residual is not None:
            mixed = mixed + motion * factors.residual
        down, up = (mixed, factors.basis) if self.basis == "output" else (factors.basis, mixed)
        return down.contiguous(), (up * self.scale).contiguous()

    def save(self, path: Path, provenance: Mapping[str, str] | None = None) -> None:
        """Writes one safetensors file with `<module>.basis|coefficients|residual` tensors."""
        tensors: dict[str, Tensor] = {}
        for module, factors in sorted(self.layers.items()):
            tensors[f"{module}.basis"] = factors.basis
            tensors[f"{module}.coefficients"] = factors.coefficients
            if factors.residual is not None:
                tensors[f"{module}.residual"] = factors.residual
        head = {"format": FORMAT, "basis": self.basis, "rank": str(self.rank), "scale": repr(self.scale)}
        save_tensors(path, tensors, {**head, "provenance": json.dumps(dict(provenance or {}), sort_keys=True)})

    @staticmethod
    def load(path: Path) -> LoraTriple:
        """Reads what :meth:`save` wrote.

        Args:
            path: of the file.

        Returns:
            The factors, float32 on the CPU.

        Raises:
            InputError: not a safetensors file, not this format, missing or non-finite factors.
        """
        tensors, head = read_tensors(path)
        if head.get("format") != FORMAT:
            raise InputError(f"{path} is not a training triple", got=str(head.get("format")), expected=FORMAT)
        basis: Basis = "input" if head["basis"] == "input" else "output"
        return LoraTriple(_group(tensors, path), basis, int(head["rank"]), float(head["scale"]))


def _group(tensors: Mapping[str, Tensor], path: Path) -> dict[str, LayerFactors]:
    modules = sorted({name.rpartition(".")[0] for name in tensors})
    layers = {}
    for module in modules:
        basis, coefficients = tensors.get(f"{module}.basis"), tensors.get(f"{module}.coefficients")
        if basis is None or coefficients is None:
            raise InputError(f"{path} lacks a factor of {module}", expected="basis and coefficients")
        layers[module] = LayerFactors(basis, coefficients, tensors.get(f"{module}.residual"))
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise InputError(f"{path} holds values that are not finite")
    return layers
