"""How a subject moves, in one word: what results are sliced by."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pipeline_lib.world.motion import channel_values
from pipeline_lib.world.scene import Subject
from pipeline_lib.world.vocabulary import FRAME_SIZE, NUM_FRAMES

Pace = Literal["slow", "fast", "erratic"]
FAST = 5.0
"""Pixels per frame from which a motion is fast: about the median of free motions (4.9)."""
ERRATIC = 0.4
"""Share of frames at which a motion turns by more than 90 degrees, above which it is erratic: about one free motion in
five."""


def pace(subject: Subject) -> Pace:
    """Whether a subject moves slowly, fast or erratically.

    Its motion is that of a point half way to its rim: what turning, growing and stretching move as well.

    Args:
        subject: of a scene.

    Returns:
        `erratic` where it turns back on itself again and again, else by its mean speed.
    """
    half, motion = FRAME_SIZE / 2, subject.motion
    lever = subject.size * half / 2
    path = np.stack(
        [
            channel_values(channel, NUM_FRAMES) * reach
            for channel, reach in (
                (motion.horizontal, half),
                (motion.vertical, half),
                (motion.angle, lever),
                (motion.size, lever),
                (motion.stretch, lever),
            )
        ],
        axis=1,
    )
    steps = np.diff(path, axis=0)
    turns = (steps[1:] * steps[:-1]).sum(axis=1) < 0
    if float(turns.mean()) > ERRATIC:
        return "erratic"
    return "fast" if float(np.linalg.norm(steps, axis=1).mean()) >= FAST else "slow"
