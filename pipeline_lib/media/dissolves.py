"""Finds dissolves: stretches where one shot is blended into the next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_WINDOWS_SECONDS = (2.0, 1.0, 0.5)
_LEAST_FRAMES = 5
_LEAST_CHANGE = 0.06
# A change of exposure is a blend too, but keeps the picture's structure.
_MOST_CORRELATION = 0.6
# Measured: dissolves of still shots leave 0.02 of the change unexplained, of moving ones up to 0.3;
# motion that changes as much leaves 0.4 and more.
_MOST_RESIDUAL = 0.33
_PURE, _FLAT = 0.08, 0.02
_SIDE = 16


def find_dissolve(thumbnails: NDArray[np.uint8], frame_seconds: float) -> tuple[int, int] | None:
    """The clearest dissolve within a stretch that has no hard cut.

    Between the two ends of a window every frame of a dissolve is a blend of the ends, whereas nothing
    that moves is.

    Args:
        thumbnails: (frames, 32, 32, 3) uint8.
        frame_seconds: time between frames.

    Returns:
        `[start, stop)` of the blended frames, or None.
    """
    small = thumbnails.reshape(len(thumbnails), _SIDE, -1, _SIDE, thumbnails.shape[2] // _SIDE, 3).mean((2, 4))
    pixels = np.divide(small.reshape(len(thumbnails), -1), 255, dtype=np.float32)
    for seconds in _WINDOWS_SECONDS:
        length = round(seconds / frame_seconds) if frame_seconds else 0
        found = _clearest(pixels, length) if _LEAST_FRAMES <= length < len(pixels) else None
        if found is not None:
            return found
    return None


def _clearest(pixels: NDArray[np.float32], length: int) -> tuple[int, int] | None:
    change = pixels[length:] - pixels[:-length]
    size = np.abs(change).mean(1)
    possible = np.flatnonzero((size > _LEAST_CHANGE) & (_middle_residual(pixels, change, length) < _MOST_RESIDUAL))
    for start in possible[np.argsort(-size[possible], kind="stable")]:
        blend = _blend(pixels[start : start + length + 1])
        if blend is None:
            continue
        mixed = np.flatnonzero((blend > _PURE) & (blend < 1 - _PURE))
        if len(mixed) >= 3:
            return int(start + mixed[0]), int(start + mixed[-1]) + 1
    return None


def _middle_residual(pixels: NDArray[np.float32], change: NDArray[np.float32], length: int) -> NDArray[np.float64]:
    """For every window at once, what :func:`_blend` finds at its middle frame: rules out nearly all."""
    moved = pixels[length // 2 : length // 2 + len(change)] - pixels[:-length]
    energy = np.maximum((change**2).sum(1), 1e-9)
    share = (moved * change).sum(1) / energy
    return np.sqrt(((moved - share[:, None] * change) ** 2).sum(1) / energy)


def _blend(window: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Share of the last frame in each frame, if the window is a blend of its ends."""
    first, change = window[0], window[-1] - window[0]
    if _correlation(first, window[-1]) > _MOST_CORRELATION:
        return None
    energy = float(change @ change)
    moved = window - first
    share = moved @ change / energy
    residual = np.sqrt(((moved - share[:, None] * change) ** 2).sum(1) / energy)
    if residual.max() > _MOST_RESIDUAL or np.diff(share).min() < -_PURE:
        return None
    return np.asarray(share, np.float32)


def _correlation(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
    """1 where both are flat: a plain picture that changes its brightness; 0 where one is: a fade."""
    spreads = float(one.std()), float(two.std())
    if min(spreads) < _FLAT:
        return float(max(spreads) < _FLAT)
    return float(((one - one.mean()) * (two - two.mean())).mean() / (spreads[0] * spreads[1]))
