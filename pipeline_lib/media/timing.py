"""Re-times a shot to a base's frame rate, by nearest time stamps, and says what that did."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.errors import MediaError
from pipeline_lib.records import FrameRules

MAX_SLOWDOWN = 2.0
"""A clip that is too short is slowed down at most this much."""


@dataclass(frozen=True)
class Timing:
    """Which source frames make the clip.

    Attributes:
        picks: (frames,) indices into the source's frames, never falling; repeats are allowed.
        notes: what was dropped, repeated or slowed down.
    """

    picks: NDArray[np.int64]
    notes: tuple[str, ...]


def retime(times: NDArray[np.float64], frame_seconds: float, rules: FrameRules, name: str, most_frames: int) -> Timing:
    """Picks the frames nearest to a regular grid at `rules.frames_per_second`.

    A shot too short for `rules.num_frames` is slowed down, at most :data:`MAX_SLOWDOWN` times, if at
    least half of those frames are distinct.

    Args:
        times: (frames,) seconds of the shot's frames.
        frame_seconds: usual time between frames; the last frame lasts that long.
        rules: the base's.
        name: of the file, for messages.
        most_frames: a longer clip is cut there.

    Returns:
        At least `rules.num_frames` picks.

    Raises:
        MediaError: the shot is too short.
    """
    seconds = float(times[-1] - times[0]) + frame_seconds
    rate = rules.frames_per_second
    # A hair is added so that 13 frames at 8 per second, read back, are 13 again in spite of rounding.
    count = math.floor(seconds * rate + 0.02)
    notes: list[str] = []
    slowdown = 1.0
    if count < rules.num_frames:
        slowdown = rules.num_frames / (seconds * rate) if seconds else math.inf
        _check_long_enough(len(times), seconds, slowdown, rules, name)
        count = rules.num_frames
        notes.append(
            f"slowed down {slowdown:.2f} times: {seconds:.2f} s are fewer than the base's "
            f"{rules.num_frames} frames at {rate:g} per second"
        )
    if count > most_frames:
        notes.append(f"kept the first {most_frames / rate:.1f} s of {seconds:.1f} s")
        count = most_frames
    grid = times[0] + np.arange(count) / (rate * slowdown)
    picks = _nearest(times, grid)
    notes.extend(_rate_notes(picks, times, rate))
    return Timing(picks, tuple(notes))


def _nearest(times: NDArray[np.float64], grid: NDArray[np.float64]) -> NDArray[np.int64]:
    after = np.clip(np.searchsorted(times, grid - 1e-6), 0, len(times) - 1)
    before = np.maximum(after - 1, 0)
    nearer_before = grid - times[before] < times[after] - grid - 1e-6
    return np.where(nearer_before, before, after).astype(np.int64)


def _rate_notes(picks: NDArray[np.int64], times: NDArray[np.float64], rate: float) -> list[str]:
    available, span = len(times), float(times[-1] - times[0])
    distinct = len(np.unique(picks))
    repeats, dropped = len(picks) - distinct, available - distinct
    source_rate = f"{(available - 1) / span:.3g}" if span else "?"
    change = f"re-timed from {source_rate} to {rate:g} frames per second"
    parts = []
    if dropped:
        parts.append(f"{dropped} of {available} frames left out")
    if repeats:
        parts.append(f"{repeats} of {len(picks)} frames are repeats")
    return [f"{change}: {', '.join(parts)}"] if parts else []


def _check_long_enough(available: int, seconds: float, slowdown: float, rules: FrameRules, name: str) -> None:
    if slowdown <= MAX_SLOWDOWN and available >= rules.num_frames / 2:
        return
    shortest = rules.num_frames / rules.frames_per_second / MAX_SLOWDOWN
    within = min(math.floor(seconds * rules.frames_per_second * MAX_SLOWDOWN), 2 * available)
    allowed = 1 + (within - 1) // rules.frame_multiple * rules.frame_multiple
    smaller = f", or set num_frames to {allowed} or less" if 1 < allowed < rules.num_frames else ""
    raise MediaError(
        f"{name} is too short",
        got=f"{available} frames in {seconds:.2f} s",
        expected=f"at least {shortest:.2f} s and {math.ceil(rules.num_frames / 2)} frames "
        f"(the base takes {rules.num_frames} frames at {rules.frames_per_second:g} per second)",
        fix=f"give a longer clip{smaller}",
    )
