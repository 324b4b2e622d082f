"""Upright crops of a subject: where to look, how to cut, and how to correct a pose."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from pipeline_lib.world.vocabulary import FRAME_SIZE, LIGHT_TINTS

CROP_SIZE = 48
EXTENT = 1.45
"""Half side of a crop in subject units."""
_CENTRE_Y = -0.3  # hats and balloons rise above the body
_TINTS = torch.tensor(list(LIGHT_TINTS.values()))


def crop_axes(size: int = CROP_SIZE) -> tuple[Tensor, Tensor]:
    """Subject units, to the right and downwards, of the pixels of a crop of ``size`` pixels."""
    axis = (torch.arange(size) + 0.5) / size * 2.0 - 1.0
    return axis * EXTENT, axis * EXTENT + _CENTRE_Y


def to_pixels(pose: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Frame coordinates of points given in subject units.

    Args:
        pose: poses, shape (N, 5).
        x: points to the right, broadcastable to (N, ...).
        y: points downwards.

    Returns:
        Pixels from the left and from the top.
    """
    shape = (-1,) + (1,) * (x.dim() - 1)
    centre_x, centre_y, log_scale, angle, log_stretch = (column.view(shape) for column in pose.unbind(dim=1))
    wide = x * torch.exp(log_scale - 0.5 * log_stretch)
    tall = y * torch.exp(log_scale + 0.5 * log_stretch)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    return centre_x + wide * cosine - tall * sine, centre_y + wide * sine + tall * cosine


def crop(pictures: Tensor, pose: Tensor) -> Tensor:
    """Cut upright, unstretched crops at one size.

    Args:
        pictures: any channels, shape (N, C, 64, 64).
        pose: one pose per picture, shape (N, 5).

    Returns:
        Crops, shape (N, C, 48, 48); 0 outside of the frame.
    """
    x, y = crop_axes()
    across, down = to_pixels(pose, x.view(1, 1, -1).expand(1, CROP_SIZE, -1), y.view(1, -1, 1).expand(1, -1, CROP_SIZE))
    grid = torch.stack([across, down], dim=-1) * (2.0 / FRAME_SIZE) - 1.0
    return functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def uncrop(crops: Tensor, pose: Tensor) -> Tensor:
    """Lay crops back to where they were cut.

    Args:
        crops: shape (N, C, 48, 48).
        pose: shape (N, 5).

    Returns:
        Pictures, shape (N, C, 64, 64); 0 outside of the crop.
    """
    axis = torch.arange(FRAME_SIZE) + 0.5
    dx = axis.view(1, 1, -1) - pose[:, 0].view(-1, 1, 1)
    dy = axis.view(1, -1, 1) - pose[:, 1].view(-1, 1, 1)
    cosine, sine = torch.cos(pose[:, 3]).view(-1, 1, 1), torch.sin(pose[:, 3]).view(-1, 1, 1)
    wide = torch.exp(pose[:, 2] - 0.5 * pose[:, 4]).view(-1, 1, 1)
    tall = torch.exp(pose[:, 2] + 0.5 * pose[:, 4]).view(-1, 1, 1)
    x, y = (dx * cosine + dy * sine) / wide, (dy * cosine - dx * sine) / tall
    grid = torch.stack([x / EXTENT, (y - _CENTRE_Y) / EXTENT], dim=-1)
    return functional.grid_sample(crops, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def without_light(pictures: Tensor, light: Tensor) -> Tensor:
    """Divide the light's tint out, so that a colour looks the same by day and by night.

    Args:
        pictures: RGB in [0, 1], shape (N, 3, H, W).
        light: probabilities of the lights, shape (N, 3).

    Returns:
        Same shape, in [0, 1].
    """
    tint = light @ _TINTS
    return (pictures / tint[:, :, None, None]).clamp(0.0, 1.0)


def residual(truth: Tensor, guess: Tensor) -> Tensor:
    """What a crop cut at a guess should tell about the true pose.

    Args:
        truth: shape (N, 5).
        guess: shape (N, 5).

    Returns:
        Shape (N, 6): x and y of the true centre in the crop's units, log of the scales' ratio,
        sine and cosine of the remaining turn, remaining log stretch.
    """
    dx, dy = truth[:, 0] - guess[:, 0], truth[:, 1] - guess[:, 1]
    cosine, sine = torch.cos(guess[:, 3]), torch.sin(guess[:, 3])
    x = (dx * cosine + dy * sine) * torch.exp(0.5 * guess[:, 4] - guess[:, 2])
    y = (dy * cosine - dx * sine) * torch.exp(-0.5 * guess[:, 4] - guess[:, 2])
    turn = truth[:, 3] - guess[:, 3]
    return torch.stack(
        [x, y, truth[:, 2] - guess[:, 2], torch.sin(turn), torch.cos(turn), truth[:, 4] - guess[:, 4]], dim=1
    )


def corrected(guess: Tensor, told: Tensor) -> Tensor:
    """Apply what a crop told: the inverse of :func:`residual`.

    Args:
        guess: shape (N, 5).
        told: shape (N, 6).

    Returns:
        Poses, shape (N, 5); angles in (-π, π].
    """
    x, y = to_pixels(guess, told[:, 0], told[:, 1])
    angle = guess[:, 3] + torch.atan2(told[:, 3], told[:, 4])
    angle = torch.remainder(angle + math.pi, 2.0 * math.pi) - math.pi
    stretch = (guess[:, 4] + told[:, 5]).clamp(-2.0, 2.0)
    scale = (guess[:, 2] + told[:, 2]).clamp(math.log(2.0), math.log(64.0))
    return torch.stack([x, y, scale, angle, stretch], dim=1)
