"""Damage as generated and decoded frames have it: blur, noise, blotches, shifted tones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)


def _blurred(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Mix each picture with its 5×5 binomial blur by an own share."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0
    kernel = (taps[:, None] * taps[None, :]).expand(3, 1, 5, 5)
    smooth = functional.conv2d(functional.pad(pictures, (2, 2, 2, 2), mode="replicate"), kernel, groups=3)
    share = _uniform(pictures.shape[0], -0.8, 1.0, generator).clamp_min(0.0)
    return pictures + (smooth - pictures) * share


def damaged(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Damage pictures at random; about a fifth stays nearly whole.

    Args:
        pictures: RGB in [0, 1], shape (N, 3, H, W).
        generator: source of the draw.

    Returns:
        Same shape, in [0, 1].
    """
    count, _, height, width = pictures.shape
    strength = _uniform(count, -0.25, 1.0, generator).clamp_min(0.0)
    gain = 1.0 + 0.05 * strength * torch.randn(count, 3, 1, 1, generator=generator)
    shift = 0.02 * strength * torch.randn(count, 3, 1, 1, generator=generator)
    image = _blurred(pictures, generator) * gain + shift
    coarse = torch.randn(count, 3, height // 8, width // 8, generator=generator)
    blotches = functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    fine = torch.randn(count, 3, height, width, generator=generator)
    grain = _uniform(count, -0.03, 0.025, generator).clamp_min(0.0)
    return (image + 0.035 * strength * blotches + grain * fine).clamp(0.0, 1.0)
