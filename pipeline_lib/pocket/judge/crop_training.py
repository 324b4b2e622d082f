"""Training of the crop network: attributes, the rest of the pose, and the own mask."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline_lib.pocket.judge.augmentation import damaged
from pipeline_lib.pocket.judge.crops import crop, residual, without_light
from pipeline_lib.pocket.judge.frame_source import FrameSource
from pipeline_lib.pocket.judge.networks import CropNetwork, CropOutput
from pipeline_lib.pocket.judge.scene_training import to_pictures
from pipeline_lib.pocket.judge.training import Losses
from pipeline_lib.pocket.judge.truth_table import SUBJECT_WORDS, FrameTable
from pipeline_lib.world.vocabulary import FRAME_SIZE

_WEIGHTS = {
    "shape": 0.5,
    "colour": 1.0,
    "second_colour": 0.3,
    "texture": 1.2,
    "accessory": 0.5,
    "eyes": 0.3,
    "antennae": 0.3,
}


def jittered(pose: Tensor, rng: np.random.Generator) -> Tensor:
    """Guesses of poses as the judge makes them: coarse at first, fine after a correction, some wild.

    Args:
        pose: true poses, shape (N, 5).
        rng: source of the draw.

    Returns:
        Guesses, shape (N, 5).
    """
    count = len(pose)
    kind = rng.choice(3, size=count, p=[0.25, 0.6, 0.15])
    noise = torch.from_numpy(rng.standard_normal((count, 5)).astype(np.float32))
    spread = torch.tensor([[0.14, 0.14, 0.12, 0.25, 0.0], [0.04, 0.04, 0.04, 0.08, 0.06], [0.15, 0.15, 0.2, 0.0, 0.0]])
    offset = noise * spread[kind]
    offset[:, :2] *= torch.exp(pose[:, 2:3])
    guess = pose + offset
    wild, coarse = torch.from_numpy(kind == 2), torch.from_numpy(kind != 1)
    turns = torch.from_numpy(rng.uniform(-np.pi, np.pi, count).astype(np.float32))
    guess[:, 3] = torch.where(wild, turns, guess[:, 3])
    guess[:, 4] = torch.where(coarse, torch.zeros(count), guess[:, 4])
    return guess


def crop_losses(output: CropOutput, told: Tensor, labels: Tensor, mask: Tensor, mask_weight: Tensor) -> Losses:
    """Losses of the crop network but the contrastive one.

    Args:
        output: what it said.
        told: true residuals, shape (N, 6).
        labels: shape (N, 7); -1 on crops without a subject.
        mask: true mask of the own subject, shape (N, 48, 48).
        mask_weight: 0 where the mask is not known, shape (N,).

    Returns:
        Named losses.
    """
    there = (labels[:, 0] >= 0).float()
    errors = functional.smooth_l1_loss(output.residual, told, beta=0.1, reduction="none").sum(dim=1)
    plain = functional.binary_cross_entropy_with_logits(output.mask, mask, reduction="none").mean(dim=(1, 2))
    losses = {
        name: _WEIGHTS[name] * functional.cross_entropy(output.words[name], labels[:, position], ignore_index=-1)
        for position, name in enumerate(SUBJECT_WORDS)
    }
    losses["pose"] = 3.0 * (errors * there).sum() / there.sum().clamp_min(1.0)
    losses["subject"] = 0.5 * functional.binary_cross_entropy_with_logits(output.subject, there)
    losses["mask"] = (plain * mask_weight).sum() / mask_weight.sum().clamp_min(1.0)
    return losses


class CropTrainer:
    """Losses of a step from its counter.

    Args:
        network: what is trained.
        source: frames.
        batch: crops a step; a sixth shows nobody, a third went through an autoencoder.
    """

    def __init__(self, network: CropNetwork, source: FrameSource, batch: int = 48) -> None:
        self.network, self.source, self.batch = network, source, batch

    def _table(self, rng: np.random.Generator) -> FrameTable:
        decoded, empty = self.batch // 3, self.batch // 6
        cached = self.source.cached(rng, self.batch - decoded - empty, decoded)
        return FrameTable.join([cached, self.source.without_subject(rng, empty)])

    def losses(self, step: int) -> Losses:
        """The losses of one step."""
        rng = self.source.generator(step, 2)
        table = self._table(rng)
        rows = np.arange(len(table.frames))
        # In pairs either subject; crops of pictures without one are cut anywhere.
        which = np.where(table.labels[:, 1, 0] >= 0, rng.integers(0, 2, len(rows)), 0)
        pose = torch.from_numpy(table.poses[rows, which])
        pose = torch.where(torch.isnan(pose), torch.from_numpy(_anywhere(rng, len(rows))), pose)
        guess = jittered(pose, rng)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        pictures = damaged(to_pictures(table.frames), generator)
        masks = torch.from_numpy(table.masks[rows, which]).float()
        light = torch.from_numpy(table.scene_labels[:, 1])
        light = torch.where(light < 0, torch.from_numpy(rng.integers(0, 3, len(rows))), light)
        lit = without_light(pictures, functional.one_hot(light, 3).float())
        cut = crop(torch.cat([lit, masks[:, None]], dim=1), guess)
        outside = (pose[:, :2] < 0).any(dim=1) | (pose[:, :2] > FRAME_SIZE).any(dim=1)
        with torch.autocast("cpu", torch.bfloat16):
            output = self.network(cut[:, :3])
        labels, known = torch.from_numpy(table.labels[rows, which]), torch.from_numpy(table.mask_known).float()
        told = residual(pose, guess)
        return _losses_of(output, ~outside, (told, labels, cut[:, 3].clamp(0, 1), known))


def _losses_of(output: CropOutput, kept: Tensor, truth: tuple[Tensor, Tensor, Tensor, Tensor]) -> Losses:
    """The losses of some rows; a subject whose centre lies outside of the frame is nobody's fault."""
    rows = CropOutput(
        {name: logits[kept] for name, logits in output.words.items()},
        output.residual[kept],
        output.subject[kept],
        output.mask[kept],
    )
    told, labels, mask, known = (values[kept] for values in truth)
    return crop_losses(rows, told, labels, mask, known)


def _anywhere(rng: np.random.Generator, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    spots = rng.uniform(8.0, 56.0, (count, 2))
    scales = np.log(rng.uniform(8.0, 20.0, (count, 1)))
    return np.concatenate([spots, scales, np.zeros((count, 2))], axis=1).astype(np.float32)
