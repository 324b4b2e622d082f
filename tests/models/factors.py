"""Random trained factors for a denoiser, and an independent merge of a LoRA into its weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline_lib.models.triple import Basis, LayerFactors, LoraTriple


def random_triple(
    denoiser: nn.Module, targets: tuple[str, ...], *, basis: Basis = "output", rank: int = 3, residual: bool = True
) -> LoraTriple:
    draw = torch.Generator().manual_seed(7)

    def factor(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw) * 0.3

    layers = {}
    for path, module in denoiser.named_modules():
        if isinstance(module, nn.Linear) and f".{path}".endswith(tuple(f".{target}" for target in targets)):
            up, down = (module.out_features, rank), (rank, module.in_features)
            shared, mixed = (up, down) if basis == "output" else (down, up)
            layers[path] = LayerFactors(factor(*shared), factor(*mixed), factor(*mixed) if residual else None)
    return LoraTriple(layers, basis, rank, scale=0.5)


@torch.no_grad()
def merge_by_hand(denoiser: nn.Module, triple: LoraTriple, identity: float, motion: float) -> None:
    """Eq. 3 and 5 written out with the factors, with nothing of the library's own merge."""
    linears: Mapping[str, nn.Module] = dict(denoiser.named_modules())
    for path, factors in triple.layers.items():
        mixed = factors.coefficients * identity
        if factors.residual is not None:
            mixed = mixed + factors.residual * motion
        update = factors.basis @ mixed if triple.basis == "output" else mixed @ factors.basis
        weight = linears[path].weight
        assert isinstance(weight, Tensor)
        weight += triple.scale * update
