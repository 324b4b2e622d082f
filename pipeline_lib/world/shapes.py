"""Signed distances: negative inside, in subject units, vectorised over any array shape."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pipeline_lib.world.scene import Part

Array = npt.NDArray[np.float32]


def circle(x: Array, y: Array, radius: float) -> Array:
    """Distance to a circle around the origin."""
    distance: Array = np.sqrt(x * x + y * y)
    return distance - radius


def box(x: Array, y: Array, width: float, height: float) -> Array:
    """Distance to an axis-aligned box with half sizes ``width`` and ``height`` (square norm)."""
    return np.maximum(np.abs(x) - width, np.abs(y) - height)


def ellipse(x: Array, y: Array, width: float, height: float) -> Array:
    """First-order distance to an ellipse with half axes ``width`` and ``height``."""
    nx, ny = x / width, y / height
    norm = np.sqrt(nx * nx + ny * ny) + 1e-6
    gradient = np.sqrt((nx / width) ** 2 + (ny / height) ** 2) + 1e-6
    return norm * (norm - 1.0) / gradient


def triangle(x: Array, y: Array, width: float, height: float) -> Array:
    """Distance to an isosceles triangle that points up, base at ``+height``."""
    slope = 1.0 / np.hypot(width, 2.0 * height)
    side = (np.abs(x) * 2.0 * height + (-y - height) * width) * slope
    return np.maximum(side, y - height)


def smooth_union(first: Array, second: Array, radius: float) -> Array:
    """Union of two distances with a fillet of the given radius."""
    mix = np.clip(0.5 + 0.5 * (second - first) / radius, 0.0, 1.0)
    return second + (first - second) * mix - radius * mix * (1.0 - mix)


def _star(x: Array, y: Array) -> Array:
    # Five-pointed: fold the plane to one half wedge, then one edge line.
    sector = 2.0 * np.pi / 5.0
    radius = np.sqrt(x * x + y * y)
    folded = np.abs((np.arctan2(x, -y) + sector / 2.0) % sector - sector / 2.0)
    px, py = radius * np.cos(folded), radius * np.sin(folded)
    outer, inner = 1.05, 0.5
    ix, iy = inner * np.cos(sector / 2.0), inner * np.sin(sector / 2.0)
    length = np.hypot(outer - ix, iy)
    return ((px - outer) * iy + py * (outer - ix)) / length


def _heart(x: Array, y: Array) -> Array:
    ax: Array = np.abs(x)
    lobe = circle(ax - 0.42, y + 0.28, 0.53)
    # The line through the tip that touches the lobe: its normal is 42.9 degrees from the x axis.
    lower = np.maximum(ax * 0.7325 + y * 0.6807 - 0.6467, -y - 0.05)
    return np.minimum(lobe, lower)


def _cross(x: Array, y: Array) -> Array:
    return np.minimum(box(x, y, 0.95, 0.34), box(x, y, 0.34, 0.95))


def _ring(x: Array, y: Array) -> Array:
    from_line: Array = np.abs(circle(x, y, 0.66))
    return from_line - 0.29


def _moon(x: Array, y: Array) -> Array:
    return np.maximum(circle(x, y, 0.98), 0.72 - np.sqrt((x - 0.52) ** 2 + (y + 0.1) ** 2))


_SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": lambda x, y: circle(x, y, 0.92),
    "square": lambda x, y: box(x, y, 0.8, 0.8),
    "triangle": lambda x, y: triangle(x, y - 0.0, 0.98, 0.88),
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "ring": _ring,
    "moon": _moon,
}

FACES: dict[str, tuple[float, float]] = {
    "circle": (0.0, -0.2),
    "square": (0.0, -0.2),
    "triangle": (0.0, 0.25),
    "star": (0.0, -0.1),
    "heart": (0.0, -0.2),
    "cross": (0.0, -0.05),
    "ring": (0.0, -0.66),
    "moon": (-0.55, -0.1),
}
TOPS: dict[str, tuple[float, float]] = {
    "circle": (0.0, -0.86),
    "square": (0.0, -0.78),
    "triangle": (0.0, -0.6),
    "star": (0.0, -0.75),
    "heart": (0.0, -0.6),
    "cross": (0.0, -0.9),
    "ring": (0.0, -0.9),
    "moon": (-0.2, -0.85),
}


def shape_distance(name: str, x: Array, y: Array) -> Array:
    """Distance to a named shape.

    Args:
        name: A word of ``vocabulary.SHAPES``.
        x: Subject coordinates, to the right.
        y: Subject coordinates, downwards.

    Returns:
        Signed distance, same shape as ``x``.
    """
    return _SHAPES[name](x, y)


_FORMS: dict[str, Callable[[Array, Array, float, float], Array]] = {
    "ellipse": ellipse,
    "box": box,
    "triangle": triangle,
}


def part_distance(part: Part, x: Array, y: Array) -> Array:
    """Distance to one part of a creature.

    Args:
        part: The part.
        x: Subject coordinates, to the right.
        y: Subject coordinates, downwards.

    Returns:
        Signed distance, same shape as ``x``.
    """
    dx, dy = x - part.x, y - part.y
    if part.angle:
        cosine, sine = np.cos(part.angle), np.sin(part.angle)
        dx, dy = dx * cosine + dy * sine, dy * cosine - dx * sine
    return _FORMS[part.form](dx, dy, part.width, part.height)
