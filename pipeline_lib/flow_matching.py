"""The linear flow-matching path, its velocity, and the draws of sigma.

`sigma` is 0 at clean data and 1 at pure noise. This is the only module that writes the path down;
everything else calls it. The path is that of rectified flow (Liu et al. 2022, Eq. 1; Lipman et al.
2022, Eq. 22 with minimal sigma 0) and the one that diffusers' FlowMatchEulerDiscreteScheduler steps.
"""

from __future__ import annotations

import torch
from torch import Tensor


def broadcast_sigma(sigma: Tensor, like: Tensor) -> Tensor:
    """Gives `sigma` trailing axes so that it multiplies `like`.

    Args:
        sigma: shape (batch,).
        like: shape (batch, ...).

    Returns:
        A view of `sigma` of shape (batch, 1, ...), in the dtype of `like`.
    """
    return sigma.to(like.dtype).view(-1, *([1] * (like.dim() - 1)))


def interpolate(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Point on the path: `noisy = (1 - sigma) * clean + sigma * noise`.

    Args:
        clean: latents, shape (batch, ...).
        noise: standard normal, same shape.
        sigma: shape (batch,), in [0, 1].

    Returns:
        Noisy latents, same shape as `clean`.
    """
    scale = broadcast_sigma(sigma, clean)
    return (1 - scale) * clean + scale * noise


def velocity_target(clean: Tensor, noise: Tensor) -> Tensor:
    """Derivative of the path with respect to sigma: `noise - clean`."""
    return noise - clean


def clean_estimate(noisy: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """The clean latents that a velocity implies: `noisy - sigma * velocity`.

    Args:
        noisy: shape (batch, ...).
        velocity: same shape.
        sigma: shape (batch,).

    Returns:
        Same shape as `noisy`.
    """
    return noisy - broadcast_sigma(sigma, noisy) * velocity


def shift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """Moves sigma towards noise: `shift * s / (1 + (shift - 1) * s)`.

    The time shift of Esser et al. 2024 (Eq. 23), as diffusers' flow schedulers apply it
    (`flow_shift`). A shift of 1 changes nothing.
    """
    return shift * sigma / (1 + (shift - 1) * sigma)


def logit_normal_sigma(generator: torch.Generator, count: int, shift: float = 1.0) -> Tensor:
    """Draws shifted logit-normal sigmas (Esser et al. 2024, Eq. 19, location 0, scale 1).

    Args:
        generator: CPU generator; the draw is the same on every device.
        count: how many.
        shift: the base's own training shift.

    Returns:
        Shape (count,), float32, in (0, 1).
    """
    return shift_sigma(torch.sigmoid(torch.randn(count, generator=generator)), shift)


def stratified_sigma(generator: torch.Generator, count: int, shift: float = 1.0) -> Tensor:
    """Draws one sigma from each of `count` equally likely parts of what `logit_normal_sigma` draws from.

    Each alone is distributed as there; together they cover the distribution, so that a batch's loss and gradient vary
    less from step to step (stratified sampling; Kingma et al. 2021, Appendix I.1, does it for diffusion).

    Args:
        generator: CPU generator.
        count: how many.
        shift: the base's own training shift.

    Returns:
        Shape (count,), float32, in (0, 1), in random order.
    """
    parts = torch.randperm(count, generator=generator) + torch.rand(count, generator=generator, dtype=torch.float64)
    # A draw of exactly 0 would be at minus infinity.
    normal = torch.distributions.Normal(0.0, 1.0).icdf((parts / count).clamp(1e-9, 1 - 1e-9))
    return shift_sigma(torch.sigmoid(normal), shift).float()


def sigma_quantiles(count: int, shift: float = 1.0) -> Tensor:
    """The midpoint quantiles of the distribution that `logit_normal_sigma` draws from.

    Args:
        count: how many.
        shift: the base's own training shift.

    Returns:
        Shape (count,), increasing, in (0, 1); used for held-out loss with no sampling noise.
    """
    probability = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    normal = torch.distributions.Normal(0.0, 1.0).icdf(probability)
    return shift_sigma(torch.sigmoid(normal), shift).float()
