"""Finds cuts: where a clip jumps from one shot to another."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.media.dissolves import find_dissolve
from pipeline_lib.records import Shot

SHORTEST_SHOT, SHORTEST_SECONDS = 3, 0.2
_BINS = 8
# A cut changes the palette of the picture, and its pixels far more than between the frames around it.
_LEAST_PALETTE, _LEAST_PIXELS, _TIMES_USUAL = 0.25, 0.03, 4.0
_MUCH = 0.15
_NEIGHBOURS, _FLASH = 12, 3


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

    At a cut the pixels change several times as much as between the frames around it, so that fast motion
    is not taken for one, and the palette changes too, or the pixels very much. A flash, after which the
    picture is as before, is no cut. Pieces shorter than `shortest` frames or :data:`SHORTEST_SECONDS`
    belong to no shot.

    Args:
        thumbnails: (frames, height, width, 3) uint8.
        frame_seconds: time between frames; 0 looks for hard cuts only.
        shortest: frames of the shortest shot.

    Returns:
        At least one shot, in order.
    """
    starts = _cuts(thumbnails)
    if frame_seconds:
        shortest = max(shortest, round(SHORTEST_SECONDS / frame_seconds))
    shots: list[Shot] = []
    for start, stop in pairwise([*starts, len(thumbnails)]):
        shots.extend(_without_dissolves(thumbnails, Shot(start=start, stop=stop), frame_seconds, shortest))
    whole = Shot(start=0, stop=len(thumbnails))
    return tuple(shot for shot in shots if shot.stop - shot.start >= shortest) or (whole,)


def _cuts(thumbnails: NDArray[np.uint8]) -> list[int]:
    changes, starts = frame_changes(thumbnails), [0]
    for index, (palette, pixels) in enumerate(changes):
        around = changes[max(0, index - _NEIGHBOURS) : index + _NEIGHBOURS + 1, 1]
        usual = float(np.median(np.delete(around, min(index, _NEIGHBOURS)))) if len(around) > 1 else 0.0
        jumped = palette > _LEAST_PALETTE or pixels > _MUCH
        if jumped and pixels > max(_LEAST_PIXELS, _TIMES_USUAL * usual) and not _is_flash(thumbnails, index + 1):
            starts.append(index + 1)
    return starts


def _is_flash(thumbnails: NDArray[np.uint8], start: int) -> bool:
    """Whether a frame soon before or after the jump looks like the other side of it."""
    before, after = thumbnails[start - 1], thumbnails[start]
    pairs = [(before, frame) for frame in thumbnails[start + 1 : start + 1 + _FLASH]]
    pairs += [(after, frame) for frame in thumbnails[max(0, start - 1 - _FLASH) : start - 1]]
    jump = np.abs(before.astype(np.int16) - after).mean()
    return any(np.abs(one.astype(np.int16) - two).mean() < jump / 4 for one, two in pairs)


def _without_dissolves(thumbnails: NDArray[np.uint8], shot: Shot, frame_seconds: float, shortest: int) -> list[Shot]:
    if shot.stop - shot.start < 2 * shortest:
        return [shot]
    found = find_dissolve(thumbnails[shot.start : shot.stop], frame_seconds)
    if found is None:
        return [shot]
    before = Shot(start=shot.start, stop=shot.start + found[0])
    after = Shot(start=shot.start + found[1], stop=shot.stop)
    return [
        piece for part in (before, after) for piece in _without_dissolves(thumbnails, part, frame_seconds, shortest)
    ]


def _histogram(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    levels = (frame.astype(np.int64) * _BINS) >> 8
    index = (levels[..., 0] * _BINS + levels[..., 1]) * _BINS + levels[..., 2]
    return np.bincount(index.ravel(), minlength=_BINS**3) / index.size
