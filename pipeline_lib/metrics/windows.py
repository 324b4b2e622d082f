"""Stretches of the reference clips that a sample may be aligned with: those that training saw.

A model that was taught sixteen windows of a long clip, or several clips, reconstructs one of them, and nobody
told it which: it is compared with the nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.metrics.catalog import Measurement
from pipeline_lib.metrics.pixels import Frames, mean_squared_error

NO_CLIP = "only pictures were given: there is no clip to align with"


@dataclass(frozen=True, kw_only=True)
class Window:
    """Frames `[start, stop)` of one clip.

    Attributes:
        clip: index of the clip.
        start: first frame.
        stop: one past the last frame.
        name: for people, e.g. "window 2 of wolf.mp4"; empty where it has none.
    """

    clip: int
    start: int
    stop: int
    name: str = ""

    @property
    def place(self) -> slice:
        """Where it is in the clip."""
        return slice(self.start, self.stop)


def whole_clips(clips: Sequence[Frames]) -> tuple[Window, ...]:
    """One window for each clip, as long as it is."""
    return tuple(Window(clip=index, start=0, stop=len(clip)) for index, clip in enumerate(clips))


def nearest_error(
    frames: Frames, clips: Sequence[Frames], windows: Sequence[Window], mask: NDArray[np.float32] | None = None
) -> Measurement:
    """The least mean squared error over all windows; which one it was is the note where there are several.

    Args:
        frames: the sample.
        clips: the reference.
        windows: what may be compared with; empty where the reference is only pictures.
        mask: (T, H, W) in [0, 1], of the only clip.

    Returns:
        The error in [0, 1], or the reason why there is none.
    """
    if not windows:
        return Measurement(None, NO_CLIP)
    measured = [
        (mean_squared_error(frames, clips[w.clip][w.place], None if mask is None else mask[w.place]), w)
        for w in windows
    ]
    found = [(error.value, error.reason, window) for error, window in measured if error.value is not None]
    if not found:
        return measured[0][0]
    value, reason, window = min(found, key=lambda one: one[0])
    nearest = f"nearest is {window.name}" if window.name else f"nearest of {len(windows)} windows"
    notes = [reason, nearest if len(windows) > 1 else ""]
    return Measurement(value, "; ".join(note for note in notes if note))
