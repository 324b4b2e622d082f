"""Labels of dots in a chart, where each can be read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

LETTER, LINE = 6.6, 14.0
"""Mean width of a letter and height of a line, of 12 pixels in the page's type."""
DOT = 6.0
"""Half a dot's width, with some air."""
CROWD = 60.0
"""Dots that are nearer than this to each other contend for room."""
_AWAY = (9.0, 16.0, 26.0, 38.0, 52.0)
_SIDES = ((1.0, 0.0), (-1.0, 0.0), (1.0, -1.0), (-1.0, -1.0), (1.0, 1.0), (-1.0, 1.0), (0.0, -1.3), (0.0, 1.3))
_OUTSIDE, _ON_LABEL, _ON_DOT, _ON_BAR = 100, 20, 10, 1
"""What a pixel of a label costs there."""


class Box(NamedTuple):
    """A rectangle in pixels, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        """0 where it is turned inside out."""
        return max(0.0, self.right - self.left) * max(0.0, self.bottom - self.top)

    def shared(self, other: Box) -> float:
        """Area that both have in common."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        return Box(left, top, min(self.right, other.right), min(self.bottom, other.bottom)).area

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """Its point that is nearest to another."""
        return min(max(x, self.left), self.right), min(max(y, self.top), self.bottom)


def labels_apart(spots: Mapping[str, tuple[float, float]], bars: Sequence[Box], room: Box) -> dict[str, Box]:
    """Puts each label beside its dot where it can be read: as clear of other labels, of dots and of bars as can be.

    Args:
        spots: centre of each dot, by its label.
        bars: what a label had better not lie on.
        room: what it must not leave.

    Returns:
        Where each label goes; those of the most crowded dots had the last choice.
    """
    dots = [Box(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in spots.values()]
    placed: dict[str, Box] = {}

    def cost(box: Box, away: float) -> float:
        return (
            _OUTSIDE * (box.area - box.shared(room))
            + _ON_LABEL * sum(map(box.shared, placed.values()))
            + _ON_DOT * sum(map(box.shared, dots))
            + _ON_BAR * sum(map(box.shared, bars))
            + away
        )

    def crowd(label: str) -> tuple[int, str]:
        return sum(math.dist(spots[label], other) < CROWD for other in spots.values()), label

    for label in sorted(spots, key=crowd):
        tried = [(_beside(spots[label], label, side, away), away) for away in _AWAY for side in _SIDES]
        placed[label] = min(tried, key=lambda one: cost(*one))[0]
    return placed


def _beside(spot: tuple[float, float], label: str, side: tuple[float, float], away: float) -> Box:
    wide = LETTER * len(label)
    x, y = spot[0] + side[0] * away, spot[1] + side[1] * away
    left = x - wide * (1 - side[0]) / 2
    return Box(left, y - LINE / 2, left + wide, y + LINE / 2)
