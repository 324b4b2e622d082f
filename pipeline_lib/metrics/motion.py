"""Dynamic degree from optical flow: VBench's boolean, its continuous form, DualReal's gap.

One flow pass gives :class:`FlowDegrees`; the rest are pure functions of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.metrics.catalog import Measurement

Flow = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Frames (T, H, W, 3) to flow (T - 1, H, W, 2) in pixels."""

FLOW_RATE = 8
"""Frames per second at which VBench looks at motion."""


@dataclass(frozen=True)
class FlowDegrees:
    """How fast the fastest 5 % of each frame pair move.

    Attributes:
        degrees: one per pair of frames `step` apart, in pixels.
        height: of the frames.
        width: of the frames.
        step: frames between the two of a pair.
        seconds: time between the two of a pair.
    """

    degrees: tuple[float, ...]
    height: int
    width: int
    step: int
    seconds: float

    @property
    def longest(self) -> float:
        """The frame's diagonal, the longest way a pixel can go and still be seen."""
        return math.hypot(self.height, self.width)


def frame_step(frames_per_second: float) -> int:
    """max(1, round(fps / 8)): every how many frames motion is looked at."""
    return max(1, round(frames_per_second / FLOW_RATE))


def flow_degrees(frames: NDArray[np.uint8], frames_per_second: float, flow: Flow) -> FlowDegrees:
    """One flow pass over a clip.

    Args:
        frames: (T, H, W, 3).
        frames_per_second: of `frames`.
        flow: the estimator.

    Returns:
        Per pair the mean of the top 5 % magnitudes; a magnitude beyond the diagonal counts as the diagonal.
    """
    _, height, width, _ = frames.shape
    step = frame_step(frames_per_second)
    longest, count = math.hypot(height, width), max(1, int(height * width * 0.05))
    degrees = []
    for vectors in flow(frames[::step]):
        magnitudes = np.minimum(np.hypot(vectors[..., 0], vectors[..., 1], dtype=np.float64), longest).ravel()
        degrees.append(float(np.partition(magnitudes, -count)[-count:].mean()))
    return FlowDegrees(tuple(degrees), height, width, step, step / frames_per_second)


def dynamic(measured: FlowDegrees) -> Measurement:
    """VBench's boolean: at least round(4·n/16) pairs above 6·min(H, W)/256, n the number of frames looked at.

    At least one pair must move: VBench's own count is 0 for two frames, which would call a still clip dynamic.
    """
    if not measured.degrees:
        return Measurement(None, "fewer than two frames to compare")
    num_frames = len(measured.degrees) + 1
    threshold = 6 * min(measured.height, measured.width) / 256
    moving = sum(degree > threshold for degree in measured.degrees)
    return Measurement(float(moving >= max(1, round(4 * num_frames / 16))))


def dynamic_mean(measured: FlowDegrees) -> Measurement:
    """The continuous form: the mean over pairs, in pixels."""
    if not measured.degrees:
        return Measurement(None, "fewer than two frames to compare")
    return Measurement(float(np.mean(measured.degrees)))


def dynamic_gap(measured: FlowDegrees, references: Sequence[FlowDegrees]) -> Measurement:
    """Distance of the continuous form to the mean over the windows of the motion clips, in pixels."""
    own = dynamic_mean(measured)
    if own.value is None:
        return own
    values = [value for value in (dynamic_mean(reference).value for reference in references) if value is not None]
    if not values:
        return Measurement(None, "no reference clip with motion to compare with")
    for reference in references:
        if (reference.height, reference.width) != (measured.height, measured.width):
            return Measurement(None, "sample and reference have different sizes: pixels do not compare")
        if not math.isclose(reference.seconds, measured.seconds, rel_tol=0.05):
            return Measurement(None, "sample and reference are looked at at different rates")
    return Measurement(abs(own.value - math.fsum(values) / len(values)))
