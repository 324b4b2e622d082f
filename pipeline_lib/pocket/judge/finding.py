"""From the two networks' outputs to subjects per frame, and from frames to tracks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from pipeline_lib.pocket.judge.crops import corrected, crop
from pipeline_lib.pocket.judge.networks import CropNetwork, CropOutput
from pipeline_lib.pocket.judge.scene_training import SCALE_UNIT
from pipeline_lib.pocket.judge.truth_table import MOST_SUBJECTS
from pipeline_lib.world.vocabulary import FRAME_SIZE

LEAST_HEAT = 0.2
"""A peak below this is not looked at."""
LEAST_PRESENCE = 0.5
"""A crop below this shows nobody."""
_SAME = 0.6  # centres nearer than this share of the scale are one subject
_CORRECTIONS = 2
_UPRIGHT = 0.93  # a told cosine below this leaves doubt about the angle


@dataclass(frozen=True)
class Found:
    """Subjects of single frames, one row each.

    Attributes:
        frame: which frame, shape (N,).
        pose: shape (N, 5).
        presence: probability of a subject, shape (N,).
        output: what the crop network said of the final crop.
    """

    frame: Tensor
    pose: Tensor
    presence: Tensor
    output: CropOutput


def peaks(grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The highest peaks of each frame's heat, at most three.

    Args:
        grid: shape (T, 6, g, g), see :class:`networks.SceneOutput`.

    Returns:
        Frame numbers (N,), coarse poses (N, 5) and heats in [0, 1] (N,).
    """
    side = grid.shape[-1]
    heat = torch.sigmoid(grid[:, 0])
    # Two subjects are at least a fifth of the frame apart.
    window = 2 * round(side / 10) + 1
    top = functional.max_pool2d(heat[:, None], window, 1, window // 2)[:, 0]
    kept = torch.where(heat >= top, heat, torch.zeros_like(heat)).flatten(1)
    values, places = kept.topk(MOST_SUBJECTS + 1, dim=1)
    frame, rank = torch.nonzero(values > LEAST_HEAT, as_tuple=True)
    place = places[frame, rank]
    told = grid.flatten(2)[frame, 1:, place]
    cell = FRAME_SIZE / side
    x = (place % side + 0.5 + told[:, 0]) * cell
    y = (torch.div(place, side, rounding_mode="floor") + 0.5 + told[:, 1]) * cell
    scale = (told[:, 2] + math.log(SCALE_UNIT)).clamp(math.log(4.0), math.log(48.0))
    angle = torch.atan2(told[:, 3], told[:, 4])
    return frame, torch.stack([x, y, scale, angle, torch.zeros_like(x)], dim=1), values[frame, rank]


def look(network: CropNetwork, pictures: Tensor, coarse: tuple[Tensor, Tensor, Tensor]) -> Found:
    """Look at each peak, correct its pose, look again, and drop what is nobody or seen twice.

    Args:
        network: the crop network.
        pictures: RGB in [0, 1] with the light divided out, shape (T, 3, 64, 64).
        coarse: from :func:`peaks`.

    Returns:
        The subjects.
    """
    frame, pose, heat = coarse
    pose, output = _settled(network, pictures[frame], pose)
    unsure = torch.nonzero(output.residual[:, 4] < _UPRIGHT).flatten()
    if len(unsure):
        pose[unsure] = _turned(network, pictures[frame[unsure]], pose[unsure], output.residual[unsure, 4])
        output = network(crop(pictures[frame], pose))
    presence = torch.sigmoid(output.subject)
    keep = (presence > LEAST_PRESENCE) & _single(frame, pose, presence * heat)
    words = {name: logits[keep] for name, logits in output.words.items()}
    kept = CropOutput(words, output.residual[keep], output.subject[keep], output.mask[keep])
    return Found(frame[keep], corrected(pose[keep], kept.residual), presence[keep], kept)


def _settled(network: CropNetwork, pictures: Tensor, pose: Tensor) -> tuple[Tensor, CropOutput]:
    """Correct poses twice: the poses, and what is told of the last crops."""
    output = network(crop(pictures, pose))
    for _ in range(_CORRECTIONS):
        pose = corrected(pose, output.residual)
        output = network(crop(pictures, pose))
    return pose, output


def _turned(network: CropNetwork, pictures: Tensor, pose: Tensor, upright: Tensor) -> Tensor:
    """Try each pose at quarter turns, too, and keep what looks most upright.

    The told cosine of the remaining turn is near 1 only where the network is sure: it is learnt as a
    plain number, so that doubt pulls it towards 0.
    """
    for quarter in (1, 2, 3):
        other = pose.clone()
        other[:, 3] += 0.5 * math.pi * quarter
        other, output = _settled(network, pictures, other)
        better = output.residual[:, 4] > upright
        pose = torch.where(better[:, None], other, pose)
        upright = torch.where(better, output.residual[:, 4], upright)
    return pose


def _single(frame: Tensor, pose: Tensor, weight: Tensor) -> Tensor:
    """Rows that no heavier row of the same frame repeats, and at most two of a frame."""
    keep = torch.ones(len(frame), dtype=torch.bool)
    for row in range(len(frame)):
        rivals = torch.nonzero((frame == frame[row]) & (weight > weight[row])).flatten().tolist()
        for rival in rivals:
            distance = float((pose[rival, :2] - pose[row, :2]).norm())
            if distance < _SAME * float(torch.exp(torch.maximum(pose[rival, 2], pose[row, 2]))):
                keep[row] = False
        if len(rivals) >= MOST_SUBJECTS:
            keep[row] = False
    return keep


def tracks(found: Found, num_frames: int) -> list[npt.NDArray[np.int64]]:
    """Join single frames to subjects, from left to right.

    The number of subjects is the one that most frames show. In the world two subjects keep their
    sides, so the left one of a frame is the left one of the clip.

    Args:
        found: subjects of single frames.
        num_frames: length of the clip.

    Returns:
        Per subject the rows of ``found``, shape (T,), -1 in frames where it is missing.
    """
    per_frame = [torch.nonzero(found.frame == number).flatten().tolist() for number in range(num_frames)]
    counts = np.array([len(rows) for rows in per_frame])
    number = int(np.bincount(counts, minlength=MOST_SUBJECTS + 1).argmax())
    if number == 0:
        return []
    joined = [np.full(num_frames, -1, dtype=np.int64) for _ in range(number)]
    full = [sorted(rows, key=lambda row: float(found.pose[row, 0])) for rows in per_frame if len(rows) == number]
    middles = [float(np.median([float(found.pose[rows[side], 0]) for rows in full])) for side in range(number)]
    for time, rows in enumerate(per_frame):
        if len(rows) >= number:
            best = sorted(rows, key=lambda row: -float(found.presence[row]))[:number]
            for side, row in enumerate(sorted(best, key=lambda row: float(found.pose[row, 0]))):
                joined[side][time] = row
        elif rows:
            away = [abs(float(found.pose[rows[0], 0]) - middle) for middle in middles]
            joined[int(np.argmin(away))][time] = rows[0]
    return joined


def rows_of(values: Tensor, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Lay rows out over time, NaN where there is none.

    Args:
        values: shape (N, ...).
        rows: shape (T,), -1 for none.

    Returns:
        Shape (T, ...).
    """
    laid = np.full((len(rows), *values.shape[1:]), np.nan, dtype=np.float32)
    present = rows >= 0
    laid[present] = values[torch.from_numpy(rows[present])].numpy()
    return laid
