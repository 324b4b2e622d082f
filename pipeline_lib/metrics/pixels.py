"""Scores that need nothing but pixels: squared errors to the reference, flicker, linear smoothness.

Frames are uint8 (T, H, W, 3).
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline_lib.metrics.catalog import Measurement

Frames = NDArray[np.uint8]
"""uint8 (T, H, W, 3), RGB."""


def mean_squared_error(frames: Frames, reference: Frames, mask: NDArray[np.float32] | None = None) -> Measurement:
    """Mean squared pixel error in [0, 1] over aligned frames.

    Frame i is compared with frame i. When one is longer, the frames that both have count and the reason says so.

    Args:
        frames: the sample.
        reference: the reference clip at the same size.
        mask: (T, H, W) in [0, 1], the reference's subject; errors are weighted by it.

    Returns:
        The error, or the reason why there is none: other sizes, no frames, an empty mask.
    """
    if frames.shape[1:3] != reference.shape[1:3]:
        sizes = f"sample {_size(frames)}, reference {_size(reference)}"
        return Measurement(None, f"{sizes}: pixels do not align")
    assert mask is None or mask.shape == reference.shape[:3], "the mask belongs to the reference"
    common = min(len(frames), len(reference))
    if common == 0:
        return Measurement(None, "no frames")
    note = ""
    if len(frames) != len(reference):
        note = f"the first {common} frames: sample has {len(frames)}, reference {len(reference)}"
    # Frame by frame: a long clip in float64 would fill the memory.
    errors = weights = 0.0
    for index in range(common):
        if mask is None:  # exact, and fast enough for every window of a long clip
            errors += cv2.norm(frames[index], reference[index], cv2.NORM_L2SQR) / 255**2
            weights += float(frames[index].size)
        else:
            error = (((frames[index].astype(np.float64) - reference[index]) / 255) ** 2).mean(-1)
            errors += float((error * mask[index]).sum())
            weights += float(mask[index].sum(dtype=np.float64))
    return Measurement(errors / weights, note) if weights > 0 else Measurement(None, "the mask is empty")


def temporal_flickering(frames: Frames) -> Measurement:
    """VBench: (255 - mean over pairs of the mean absolute difference) / 255, all frames, native size."""
    if len(frames) < 2:
        return Measurement(None, "one frame has no neighbour")
    differences = [_mean_absolute(before, after) for before, after in pairwise(frames)]
    return Measurement((255 - float(np.mean(differences))) / 255)


def motion_smoothness_linear(frames: Frames) -> Measurement:
    """VBench's motion smoothness with the mean of both neighbours in place of AMT.

    Odd frames are dropped and told from the even ones beside them, to uint8 by truncation; an odd frame at the
    end has no right neighbour and does not count.
    """
    if len(frames) < 3:
        return Measurement(None, "fewer than 3 frames")
    even = frames[0::2].astype(np.uint16)
    told = ((even[:-1] + even[1:]) // 2).astype(np.uint8)
    differences = [_mean_absolute(guess, truth) for guess, truth in zip(told, frames[1::2], strict=False)]
    return Measurement((255 - float(np.mean(differences))) / 255)


def _mean_absolute(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(np.int16) - other.astype(np.int16)).mean())


def _size(frames: Frames) -> str:
    return f"{frames.shape[2]}×{frames.shape[1]}"
