"""Finds cuts: where a clip jumps from one shot to another."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.media.dissolves import find_dissolve
from pipeline_lib.records import Shot

SHORTEST_SHOT = 3
_BINS = 8
# A cut changes the palette of the picture, and its pixels far more than between the frames around it.
_LEAST_PALETTE, _LEAST_PIXELS, _TIMES_USUAL = 0.25, 0.03, 4.0
_NEIGHBOURS = 12


def frame_changes(thumbnails: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How much each frame differs from the one before.

    Args:
        thumbnails: (frames, height, width, 3) uint8.

    Returns:
        (frames - 1, 2) float64 in [0, 1]: the share of the colour histogram that moved (blind to motion
        inside the picture, jumpy where one colour fills it), and the mean change of a pixel.
    """
    if len(thumbnails) < 2:
        return np.zeros((0, 2))
    histograms = np.stack([_histogram(frame) for frame in thumbnails])
    palette = np.abs(np.diff(histograms, axis=0)).sum(1) / 2
    pixels = [np.abs(one.astype(np.int16) - two).mean() / 255 for one, two in pairwise(thumbnails)]
    return np.stack([palette, pixels], axis=1)


def find_shots(
    thumbnails: NDArray[np.uint8], frame_seconds: float = 0.0, shortest: int = SHORTEST_SHOT
) -> tuple[Shot, ...]:
    """Splits a clip at its cuts and dissolves; blended frames belong to no shot.

    At a cut both measures of :func:`frame_changes` are high, and that of the pixels is several times the
    median around it, so that fast motion is not taken for cuts. Shots shorter than `shortest` frames
    (flashes) join the one before.

    Args:
        thumbnails: (frames, height, width, 3) uint8.
        frame_seconds: time between frames; 0 looks for hard cuts only.
        shortest: frames of the shortest shot.

    Returns:
        At least one shot, in order.
    """
    starts = _cuts(frame_changes(thumbnails), shortest)
    if len(starts) > 1 and len(thumbnails) - starts[-1] < shortest:
        starts.pop()
    shots: list[Shot] = []
    for start, stop in zip(starts, [*starts[1:], len(thumbnails)], strict=True):
        shots.extend(_without_dissolves(thumbnails, Shot(start=start, stop=stop), frame_seconds, shortest))
    return tuple(shots)


def _cuts(changes: NDArray[np.float64], shortest: int) -> list[int]:
    starts = [0]
    for index, (palette, pixels) in enumerate(changes):
        around = changes[max(0, index - _NEIGHBOURS) : index + _NEIGHBOURS + 1, 1]
        usual = float(np.median(np.delete(around, min(index, _NEIGHBOURS)))) if len(around) > 1 else 0.0
        jumped = palette > _LEAST_PALETTE and pixels > max(_LEAST_PIXELS, _TIMES_USUAL * usual)
        if jumped and index + 1 - starts[-1] >= shortest:
            starts.append(index + 1)
    return starts


def _without_dissolves(thumbnails: NDArray[np.uint8], shot: Shot, frame_seconds: float, shortest: int) -> list[Shot]:
    if shot.stop - shot.start < 2 * shortest:
        return [shot]
    found = find_dissolve(thumbnails[shot.start : shot.stop], frame_seconds)
    if found is None:
        return [shot]
    before = Shot(start=shot.start, stop=shot.start + found[0])
    after = Shot(start=shot.start + found[1], stop=shot.stop)
    parts = [part for part in (before, after) if part.stop - part.start >= shortest]
    return [piece for part in parts for piece in _without_dissolves(thumbnails, part, frame_seconds, shortest)]


def _histogram(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    levels = (frame.astype(np.int64) * _BINS) >> 8
    index = (levels[..., 0] * _BINS + levels[..., 1]) * _BINS + levels[..., 2]
    return np.bincount(index.ravel(), minlength=_BINS**3) / index.size
