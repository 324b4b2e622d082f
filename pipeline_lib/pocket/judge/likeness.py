"""How much a crop looks like somebody: templates painted by the world, laid over the crop and weighed.

A template is a subject's look in the judge's upright crop, painted by the world itself. Its likeness
to a crop is a log-likelihood ratio in plain numbers: every pixel that the template covers speaks for it
when the colours agree and against it when they do not, up to a limit; a pixel that it does not cover
says nothing. So two templates that differ in one limb are told apart by the pixels of that limb alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline_lib.pocket.judge.crops import CROP_SIZE, crop, crop_axes
from pipeline_lib.world.scene import Subject
from pipeline_lib.world.subjects import paint_subject

_FINE = 2  # painted pixels per pixel of a crop
_SOFTNESS = np.full((1, 1, 1), 1.0 / 16.0, dtype=np.float32)  # one pixel of a frame in subject units, at the usual size
_LEAST_COVER = 0.6
_AGREE, _WORST = 0.3, 0.7
"""A pixel agrees when its worst channel is off by less than the first; it counts as no worse than the second."""
_STEPS = (0.1, 0.1, 0.08, 0.12, 0.15)  # subject units, log scale, radians, log stretch
_ROUNDS, _SHRINK = 8, 0.75
_AROUND = ((-0.12, 0.0, 0.12), (-0.25, 0.0, 0.25), (-0.35, 0.0, 0.35))  # log scale, radians, log stretch


@dataclass(frozen=True)
class Templates:
    """Looks of several people.

    Attributes:
        colour: RGB in daylight, shape (N, 3, 48, 48).
        cover: how much each pixel counts, in [0, 1], shape (N, 48, 48).
    """

    colour: Tensor
    cover: Tensor

    def take(self, rows: Tensor | slice) -> Templates:
        """Some of them."""
        return Templates(self.colour[rows], self.cover[rows])


def paint_templates(subjects: list[Subject]) -> Templates:
    """Paint the upright crops of subjects.

    Args:
        subjects: whom; their motion and place do not matter.

    Returns:
        One template each.
    """
    across, down = crop_axes(CROP_SIZE * _FINE)
    x, y = np.meshgrid(across.numpy(), down.numpy())
    colours, covers = [], []
    for subject in subjects:
        canvas = paint_subject(subject, x[None], y[None], _SOFTNESS, "flat")
        opacity = torch.from_numpy(canvas.coverage)[:, None]
        cover = functional.avg_pool2d(opacity, _FINE)
        colour = functional.avg_pool2d(torch.from_numpy(canvas.colour).permute(0, 3, 1, 2) * opacity, _FINE)
        colours.append(colour / cover.clamp_min(1e-3))
        covers.append(((cover[:, 0] - _LEAST_COVER) / (1.0 - _LEAST_COVER)).clamp(0.0, 1.0))
    return Templates(torch.cat(colours), torch.cat(covers))


def cut(daylight: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
    """Crops, and which of their pixels lie inside of the frame.

    Args:
        daylight: RGB with the light divided out, shape (T, 3, 64, 64).
        pose: shape (T, 5).

    Returns:
        Shapes (T, 3, 48, 48) and (T, 48, 48).
    """
    cuts = crop(torch.cat([daylight, torch.ones_like(daylight[:, :1])], dim=1), pose)
    return cuts[:, :3], (cuts[:, 3] > 0.99).float()


def unlikeness(crops: Tensor, counts: Tensor, templates: Templates) -> Tensor:
    """How little each crop looks like each template; below 0 speaks for it.

    Args:
        crops: shape (T, 3, 48, 48).
        counts: pixels that count, shape (T, 48, 48).
        templates: N of them.

    Returns:
        Shape (T, N), in pixels: -1 for a pixel that agrees wholly.
    """
    found = []
    for colour, cover in zip(templates.colour.split(32), templates.cover.split(32), strict=True):
        off = (crops[:, None] - colour[None]).abs().amax(dim=2).clamp_max(_WORST)
        found.append(torch.einsum("tnhw,nhw,thw->tn", off / _AGREE - 1.0, cover, counts))
    return torch.cat(found, dim=1)


def registered(daylight: Tensor, pose: Tensor, templates: Templates, covered: Tensor) -> tuple[Tensor, Tensor]:
    """Move poses a little until each crop looks most like its own template.

    A judge's pose is a few degrees and a pixel off, which hides small differences. Of several starts
    around the pose the best one goes on, one number at a time, in shrinking steps.

    Args:
        daylight: shape (T, 3, 64, 64).
        pose: shape (T, 5).
        templates: one per frame.
        covered: pixels that do not count, shape (T, 48, 48).

    Returns:
        Poses, shape (T, 5), and what is left of unlikeness, shape (T,).
    """

    def cost(tried: Tensor) -> Tensor:
        crops, inside = cut(daylight, tried)
        off = (crops - templates.colour).abs().amax(dim=1).clamp_max(_WORST)
        return ((off / _AGREE - 1.0) * templates.cover * inside * (1.0 - covered)).sum(dim=(1, 2))

    ends = [_descended(cost, start) for start in _starts(cost, pose)]
    left, which = torch.stack([best for _, best in ends]).min(dim=0)
    return torch.stack([end for end, _ in ends])[which, torch.arange(len(pose))], left


def _starts(cost: Callable[[Tensor], Tensor], pose: Tensor) -> list[Tensor]:
    """The pose itself, and the best of those with another size, turn and stretch."""
    others = []
    for scale, turn, stretch in product(*_AROUND):
        other = pose.clone()
        other[:, 2:] += torch.tensor([scale, turn, stretch])
        others.append(other)
    best = torch.stack([cost(other) for other in others]).argmin(dim=0)
    return [pose, torch.stack(others)[best, torch.arange(len(pose))]]


def _descended(cost: Callable[[Tensor], Tensor], pose: Tensor) -> tuple[Tensor, Tensor]:
    """Poses after a search along each number in turn, and their costs."""
    best, steps = cost(pose), torch.tensor(_STEPS)
    for _ in range(_ROUNDS):
        for number, sign in product(range(len(_STEPS)), (1.0, -1.0)):
            tried = pose.clone()
            unit = torch.exp(pose[:, 2]) if number < 2 else 1.0
            tried[:, number] += sign * steps[number] * unit
            new = cost(tried)
            better = new < best
            pose, best = torch.where(better[:, None], tried, pose), torch.where(better, new, best)
        steps = steps * _SHRINK
    return pose, best
