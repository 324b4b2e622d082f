"""What an adapted layer computes with: the coefficients, their strengths, masks and residual; and in which dtype."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Coefficients(nn.Module):
    """Parametrisation of the coefficient factor: strengths, masks and the motion residual.

    With no residual, no mask and strength 1 it is the identity, at no cost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.residual: nn.Parameter | None = None
        self.coefficient_mask: Tensor | None = None
        self.residual_mask: Tensor | None = None
        self.identity = 1.0
        self.motion = 1.0
        self.dtype = torch.float32

    def forward(self, coefficients: Tensor) -> Tensor:
        """The coefficients that the layer computes with; same shape as stored."""
        mixed = _scaled(coefficients, self.coefficient_mask, self.identity)
        if self.residual is not None:
            mixed = mixed + _scaled(self.residual, self.residual_mask, self.motion)
        return mixed.to(self.dtype)


class InDtype(nn.Module):
    """Parametrisation of a factor that is stored in float32 and computed with in another dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, factor: Tensor) -> Tensor:
        """The factor, rounded; its gradient is float32."""
        return factor.to(self.dtype)


def products_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """What a training adapter multiplies in: on a GPU the base's dtype, else float32.

    An H200 does 67 TFLOP/s in float32 and 989 in bfloat16; on the CPU there is nothing to gain. Measured on the pocket
    base in bfloat16 (rank 16, 2 seeds): the gradient is 1.12 % and 1.05 % off that of a float32 base with bfloat16
    products, 1.12 % and 1.04 % with float32 ones: the rounding of the base's own activations is what counts.

    Args:
        device: of the base.
        dtype: of the base.

    Returns:
        The dtype.
    """
    return dtype if device.type == "cuda" else torch.float32


def _scaled(factor: Tensor, mask: Tensor | None, strength: float) -> Tensor:
    masked = factor if mask is None else factor * mask
    return masked if strength == 1.0 else masked * strength
