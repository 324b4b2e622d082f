"""Random creatures: fused parts, two colours, patterns, one to four eyes, antennae."""

from __future__ import annotations

import numpy as np

from pipeline_lib.world.scene import Part

_FORMS = ("ellipse", "ellipse", "box", "triangle")


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _ears(rng: np.random.Generator, head: Part) -> list[Part]:
    form = _pick(rng, ("ellipse", "triangle"))
    width, height = rng.uniform(0.14, 0.26), rng.uniform(0.24, 0.42)
    spread, tilt = head.width * rng.uniform(0.5, 0.9), rng.uniform(0.0, 0.6)
    y = head.y - head.height * 0.85
    return [Part(form, head.x + side * spread, y, width, height, side * tilt, 1) for side in (-1.0, 1.0)]


def _legs(rng: np.random.Generator, body: Part) -> list[Part]:
    count = int(rng.integers(2, 5))
    width, height = rng.uniform(0.11, 0.18), rng.uniform(0.2, 0.32)
    xs = np.linspace(-0.75, 0.75, count) * body.width
    y = body.y + body.height + 0.3 * height
    form = _pick(rng, ("ellipse", "box"))
    return [Part(form, body.x + float(x), y, width, height, 0.0, 1) for x in xs]


def _limbs(rng: np.random.Generator, body: Part) -> list[Part]:
    width, height = rng.uniform(0.26, 0.42), rng.uniform(0.12, 0.22)
    tilt, y = rng.uniform(-0.8, 0.8), body.y + rng.uniform(-0.25, 0.15)
    form = _pick(rng, ("ellipse", "triangle"))
    return [Part(form, body.x + side * (body.width + 0.12), y, width, height, side * tilt, 1) for side in (-1.0, 1.0)]


def _tail(rng: np.random.Generator, body: Part) -> list[Part]:
    side = float(rng.choice([-1.0, 1.0]))
    tilt = side * rng.uniform(-0.9, -0.2)
    return [Part("ellipse", body.x + side * (body.width + 0.15), body.y + 0.15, 0.4, 0.14, tilt, 1)]


def creature_parts(
    rng: np.random.Generator,
) -> tuple[tuple[Part, ...], tuple[float, float], tuple[float, float]]:
    """Draw the parts of a creature.

    Args:
        rng: Source of the draw.

    Returns:
        The parts (the first ones behind), the face position and the top position, all in
        subject units, spanning about [-1, 1].
    """
    body = Part(
        _pick(rng, _FORMS),
        0.0,
        0.3 + rng.uniform(-0.1, 0.1),
        rng.uniform(0.45, 0.78),
        rng.uniform(0.36, 0.6),
        0.0,
        0,
    )
    lift = body.y - body.height - rng.uniform(0.02, 0.2)
    head = Part(
        _pick(rng, ("ellipse", "ellipse", "box")),
        rng.uniform(-0.22, 0.22),
        lift,
        rng.uniform(0.36, 0.62),
        rng.uniform(0.32, 0.46),
        0.0,
        0,
    )
    chance = rng.random(4)
    extras = _ears(rng, head) if chance[0] < 0.5 else []
    extras += _legs(rng, body) if chance[1] < 0.55 else []
    extras += _limbs(rng, body) if chance[2] < 0.4 else []
    extras += _tail(rng, body) if chance[3] < 0.3 else []
    return (*extras, body, head), (head.x, head.y), (head.x, head.y - 0.9 * head.height)
