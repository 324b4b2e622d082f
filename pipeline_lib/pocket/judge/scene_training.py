"""Training of the scene network: where subjects are, their mask, background and light."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline_lib.pocket.judge.augmentation import damaged
from pipeline_lib.pocket.judge.frame_source import FrameSource
from pipeline_lib.pocket.judge.networks import SceneNetwork, SceneOutput
from pipeline_lib.pocket.judge.training import Losses
from pipeline_lib.pocket.judge.truth_table import FRAME_WORDS, FrameTable
from pipeline_lib.world.vocabulary import FRAME_SIZE

SCALE_UNIT = 16.0
"""Pixels; the scene network tells scales relative to this."""
_NEAR = 1.3  # cells around a centre that learn its pose


def to_pictures(frames: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    """Turn uint8 frames (N, H, W, 3) into (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255.0


def _cell_targets(table: FrameTable, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Heat map (N, g, g), pose targets (N, 5, g, g) and their weights (N, g, g) on a grid of ``side`` cells."""
    pose = torch.from_numpy(table.poses)
    cell = FRAME_SIZE / side
    axis = torch.arange(side) + 0.5
    shape = (*pose.shape[:2], 1, 1)
    dx = pose[..., 0].div(cell).view(shape) - axis.view(1, 1, 1, -1)
    dy = pose[..., 1].div(cell).view(shape) - axis.view(1, 1, -1, 1)
    away = torch.nan_to_num(dx.square() + dy.square(), nan=1e6)
    heat, owner = torch.exp(-away / 1.2).max(dim=1)
    whole = (len(pose), 2, side, side)
    scale = pose[..., 2] - float(np.log(SCALE_UNIT))
    told = torch.stack(
        [
            (dx + 0.0 * dy).expand(whole),
            (dy + 0.0 * dx).expand(whole),
            *(v.view(shape).expand(whole) for v in (scale, pose[..., 3].sin(), pose[..., 3].cos())),
        ],
        dim=2,
    )
    index = owner[:, None, None].expand(-1, 1, 5, -1, -1)
    targets = torch.nan_to_num(told.gather(1, index).squeeze(1))
    return heat, targets, (away.amin(dim=1) < _NEAR**2).float()


def _focal(logits: Tensor, heat: Tensor) -> Tensor:
    """Cross-entropy against soft heat, easy cells made light."""
    plain = functional.binary_cross_entropy_with_logits(logits, heat, reduction="none")
    return ((torch.sigmoid(logits) - heat).abs().square() * plain).sum(dim=(1, 2)).mean()


def scene_losses(output: SceneOutput, table: FrameTable) -> Losses:
    """Losses of the scene network.

    Args:
        output: what it said.
        table: the truth.

    Returns:
        Named losses.
    """
    heat, targets, weight = _cell_targets(table, output.grid.shape[-1])
    errors = functional.smooth_l1_loss(output.grid[:, 1:], targets, beta=0.2, reduction="none").sum(dim=1)
    union = torch.from_numpy(table.masks.any(axis=1)).float()
    labels = torch.from_numpy(table.scene_labels)
    losses = {
        "centre": _focal(output.grid[:, 0], heat),
        "pose": (errors * weight).sum() / weight.sum().clamp_min(1.0),
        "mask": functional.binary_cross_entropy_with_logits(output.mask, union),
    }
    for position, name in enumerate(FRAME_WORDS):
        losses[name] = 0.5 * functional.cross_entropy(output.frame[name], labels[:, position], ignore_index=-1)
    return losses


class SceneTrainer:
    """Losses of a step from its counter.

    Args:
        network: what is trained.
        source: frames.
        batch: frames a step.
    """

    def __init__(self, network: SceneNetwork, source: FrameSource, batch: int = 48) -> None:
        self.network, self.source, self.batch = network, source, batch

    def losses(self, step: int) -> Losses:
        """The losses of one step."""
        rng = self.source.generator(step, 1)
        empty, decoded = self.batch // 6, self.batch // 4
        table = FrameTable.join(
            [
                self.source.cached(rng, self.batch - empty - decoded, decoded),
                self.source.without_subject(rng, empty),
            ]
        )
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        pictures = damaged(to_pictures(table.frames), generator)
        with torch.autocast("cpu", torch.bfloat16):
            output = self.network(pictures)
        return scene_losses(output, table)
