"""Two views of one thing are to be nearest to each other: InfoNCE (van den Oord et al., 2018)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_TEMPERATURE = 0.1


def partner_loss(embedding: Tensor) -> Tensor:
    """Each row against all others; its partner (rows 2k and 2k + 1) is to be the nearest.

    Args:
        embedding: unit vectors, shape (N, D), N even.

    Returns:
        Cross-entropy at temperature 0.1.
    """
    similarity = embedding @ embedding.T / _TEMPERATURE
    similarity = similarity - 1e4 * torch.eye(len(embedding))
    return functional.cross_entropy(similarity, torch.arange(len(embedding)) ^ 1)
