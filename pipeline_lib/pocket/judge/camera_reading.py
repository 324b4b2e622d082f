"""How the camera moves: the background is registered under each move, and the errors are weighed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.world.vocabulary import BACKGROUNDS, CAMERAS, FRAME_SIZE

_PANS = (0.85, 1.0, 1.15, 1.35)
_ZOOMS = (0.48, 0.6, 0.72)
_LAG = 3
_CLIP_STEPS = 12.0  # steps of a whole clip, to which the camera's amounts refer
FEATURE_SIZE = 4 * len(CAMERAS) + 3 + len(BACKGROUNDS)
_TINY = 1e-4


def _moves() -> list[tuple[int, float]]:
    """Pairs (index of the camera's word, amount) that are tried."""
    pans = [(word, amount) for word in (1, 2) for amount in _PANS]
    return [(0, 0.0), *pans, *((3, amount) for amount in _ZOOMS)]


def _grids(starts: Tensor) -> Tensor:
    """Where a later frame's pixels lie in an earlier one, per start and move: shape (P, M, 64, 64, 2)."""
    axis = (torch.arange(FRAME_SIZE) + 0.5) / (FRAME_SIZE / 2.0) - 1.0
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    grids = []
    for start in starts.tolist():
        row = []
        for word, amount in _moves():
            before, after = amount * start / _CLIP_STEPS, amount * (start + _LAG) / _CLIP_STEPS
            if word == 3:
                ratio = (1.0 + before) / (1.0 + after)
                row.append(torch.stack([x * ratio, y * ratio], dim=-1))
            else:
                shift = (after - before) * (-1.0 if word == 1 else 1.0)
                row.append(torch.stack([x + shift, y], dim=-1))
        grids.append(torch.stack(row))
    return torch.stack(grids)


def registration_features(pictures: Tensor, subject: Tensor, background: Tensor) -> Tensor:
    """Errors of registering later frames onto earlier ones under each camera move.

    Args:
        pictures: one clip, RGB in [0, 1], shape (T, 3, 64, 64), T ≥ 4.
        subject: where subjects are, in [0, 1], shape (T, 64, 64).
        background: probabilities of the backgrounds, shape (8,).

    Returns:
        Features, shape (``FEATURE_SIZE``,).
    """
    starts = torch.arange(0, len(pictures) - _LAG, _LAG)
    grids = _grids(starts)
    pairs, moves = grids.shape[:2]
    seen = 1.0 - functional.max_pool2d(subject[:, None], 5, 1, 2)
    stacked = torch.cat([pictures, seen], dim=1)
    before = stacked[starts].repeat_interleave(moves, dim=0)
    moved = functional.grid_sample(before, grids.flatten(0, 1), padding_mode="zeros", align_corners=False)
    moved = moved.unflatten(0, (pairs, moves))
    after = stacked[starts + _LAG][:, None]
    weight = (moved[:, :, 3] * after[:, :, 3]).clamp(0.0, 1.0)
    difference = moved[:, :, :3] - after[:, :, :3]
    squared = (difference.square().mean(dim=2) * weight).sum(dim=(0, 3))
    absolute = (difference.abs().mean(dim=2) * weight).sum(dim=(0, 3))
    total = weight.sum(dim=(0, 3))
    return torch.cat([_weighed(absolute, squared, total), background])


def _weighed(absolute: Tensor, squared: Tensor, total: Tensor) -> Tensor:
    """Best error per camera word: whole picture, and the rows that tell it best.

    Args:
        absolute: summed absolute errors per move and row, shape (M, 64).
        squared: summed squared errors, same shape.
        total: summed weights, same shape.

    Returns:
        Shape (19,).
    """
    words = torch.tensor([word for word, _ in _moves()])
    mean_absolute = absolute.sum(dim=1) / (total.sum(dim=1) + 1.0)
    mean_squared = squared.sum(dim=1) / (total.sum(dim=1) + 1.0)
    rows = squared / (total + 4.0)
    first, second, gains = [], [], []
    for word in range(len(CAMERAS)):
        of_word = words == word
        best = mean_squared.masked_fill(~of_word, torch.inf).argmin()
        first.append(mean_absolute[of_word].min())
        second.append(mean_squared[best])
        if word:
            gains.append((torch.log(rows[0] + _TINY) - torch.log(rows[best] + _TINY)).amax())
    one, two = torch.log(torch.stack(first) + 1e-3), torch.log(torch.stack(second) + 1e-5)
    return torch.cat([one + 4.0, two + 8.0, 4.0 * (one - one.mean()), 2.0 * (two - two.mean()), torch.stack(gains)])


class CameraNetwork(nn.Module):
    """Two layers over the registration errors.

    Args:
        width: hidden numbers.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(FEATURE_SIZE, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 4)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Logits of the world's camera words.

        Args:
            features: shape (N, ``FEATURE_SIZE``).

        Returns:
            Shape (N, 4).
        """
        return self.layers(features)
