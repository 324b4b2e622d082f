"""The Pareto front: what no other point beats in one thing without being worse in the other."""

from __future__ import annotations

from collections.abc import Mapping


def pareto_front(points: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """Names of the points that no other one dominates; of both numbers more is better.

    Args:
        points: by name.

    Returns:
        The front, from the smallest first number to the largest; equal points are all on it or none is.
    """
    front = [name for name, point in points.items() if not any(_dominates(other, point) for other in points.values())]
    return tuple(sorted(front, key=lambda name: (points[name], name)))


def _dominates(first: tuple[float, float], second: tuple[float, float]) -> bool:
    return first != second and first[0] >= second[0] and first[1] >= second[1]
