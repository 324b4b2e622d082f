"""The coefficients that an adapted layer computes with: strengths, dropout masks and the motion residual."""

from __future__ import annotations

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

    def forward(self, coefficients: Tensor) -> Tensor:
        """The coefficients that the layer computes with; same shape as stored."""
        mixed = _scaled(coefficients, self.coefficient_mask, self.identity)
        if self.residual is not None:
            mixed = mixed + _scaled(self.residual, self.residual_mask, self.motion)
        return mixed


def _scaled(factor: Tensor, mask: Tensor | None, strength: float) -> Tensor:
    masked = factor if mask is None else factor * mask
    return masked if strength == 1.0 else masked * strength
