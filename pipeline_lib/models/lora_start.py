"""Bringing a LoRA of any rank to the rank of the adapter that starts from it."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline_lib.models.lora_names import Layers


def reduced(down: Tensor, up: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The factors of a layer at a rank that is not above the one asked for.

    Args:
        down: (r, in).
        up: (out, r).
        rank: the most that comes back.

    Returns:
        The same factors where r is small enough; else the best approximation of `up @ down` of that rank (Eckart and
        Young 1936), both factors equally large.
    """
    if down.shape[0] <= rank:
        return down, up
    left, triangle_up = torch.linalg.qr(up.double())
    right, triangle_down = torch.linalg.qr(down.double().T)
    u, values, v = torch.linalg.svd(triangle_up @ triangle_down.T)
    root = values[:rank].sqrt()
    return (root[:, None] * (right @ v[:rank].T).T).float(), (left @ u[:, :rank] * root).float()


def energy_lost(layers: Layers, rank: int) -> float:
    """Share of the squared size of all updates that :func:`reduced` leaves out.

    Args:
        layers: module path to (down (r, in), up (out, r)).
        rank: that each is brought to.

    Returns:
        In [0, 1]; 0 where no layer's rank is above.
    """
    lost = total = 0.0
    for down, up in layers.values():
        kept_down, kept_up = reduced(down, up, rank)
        whole, kept = _energy(down, up), _energy(kept_down, kept_up)
        total += whole
        lost += max(0.0, whole - kept) if down.shape[0] > rank else 0.0
    return lost / total if total else 0.0


def _energy(down: Tensor, up: Tensor) -> float:
    """Squared Frobenius norm of `up @ down`, without making that product."""
    down, up = down.double(), up.double()
    return float(((up.T @ up) * (down @ down.T)).sum())
