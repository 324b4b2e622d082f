"""Painting one subject: body, pattern, face and accessory, with its coverage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline_lib.world import shapes
from pipeline_lib.world.scene import Subject
from pipeline_lib.world.vocabulary import OUTLINE_PALETTE, PALETTE

Array = npt.NDArray[np.float32]
_DARK = np.asarray((0.06, 0.05, 0.09), dtype=np.float32)
_BRIGHT = np.asarray((0.98, 0.98, 0.98), dtype=np.float32)


@dataclass
class Canvas:
    """What is painted so far, in subject units.

    Attributes:
        x: Subject coordinates, to the right, shape (T, H, W).
        y: Subject coordinates, downwards.
        softness: Width of one pixel in subject units, broadcastable to ``x``.
        look: ``"flat"`` or ``"outline"``.
        colour: RGB so far, shape (T, H, W, 3).
        coverage: Opacity so far in [0, 1], shape (T, H, W).
    """

    x: Array
    y: Array
    softness: Array
    look: str
    colour: Array
    coverage: Array

    def ink(self, word: str) -> Array:
        """RGB of a colour word in this look."""
        palette = PALETTE if self.look == "flat" else OUTLINE_PALETTE
        return np.asarray(palette[word], dtype=np.float32)

    def opacity(self, distance: Array) -> Array:
        """Antialiased opacity of a signed distance."""
        return np.clip(0.5 - distance / self.softness, 0.0, 1.0)

    def lay(self, distance: Array, colour: Array) -> None:
        """Paint a region over what is there.

        Args:
            distance: Signed distance of the region.
            colour: RGB, one colour or one per pixel.
        """
        opacity = self.opacity(distance)
        self.colour += (colour - self.colour) * opacity[..., None]
        np.maximum(self.coverage, opacity, out=self.coverage)

    def lay_rimmed(self, distance: Array, colour: Array) -> None:
        """Paint a region with a darker rim, which keeps it visible on any background."""
        width = 0.1 if self.look == "flat" else 0.16
        rim = colour * 0.45 if self.look == "flat" else _DARK
        self.lay(distance, rim)
        self.lay(distance + width, colour)


def _pattern(subject: Subject, x: Array, y: Array) -> Array:
    """Share of the pattern colour per pixel, in [0, 1]."""
    frequency = 6.2 * subject.texture_scale
    cosine, sine = np.cos(subject.texture_angle), np.sin(subject.texture_angle)
    along, across = (x * cosine + y * sine) * frequency, (y * cosine - x * sine) * frequency
    if subject.texture == "striped":
        wave = np.sin(along * 1.25)
    elif subject.texture == "dotted":
        wave = np.cos(along) + np.cos(across) - 0.75
    else:
        wave = 1.6 * np.sin(along * 0.9) * np.sin(across * 0.9)
    return np.clip(0.5 + 2.0 * wave, 0.0, 1.0)


def _main_colour(subject: Subject, canvas: Canvas) -> Array:
    main = canvas.ink(subject.colour)
    if subject.texture == "plain":
        return main
    second = canvas.ink(subject.second_colour)
    return main + (second - main) * _pattern(subject, canvas.x, canvas.y)[..., None]


def _lay_antennae(subject: Subject, canvas: Canvas) -> None:
    top_x, top_y = subject.top
    for position in range(subject.antennae):
        side = position - (subject.antennae - 1) / 2.0
        base, tip = top_x + 0.18 * side, top_x + 0.5 * side
        mix = np.clip((top_y - canvas.y + 0.1) / 0.5, 0.0, 1.0)
        stalk = np.maximum(
            np.abs(canvas.x - base - (tip - base) * mix) - 0.05,
            np.maximum(canvas.y - top_y - 0.1, top_y - 0.4 - canvas.y),
        )
        canvas.lay(stalk, _DARK)
        bulb = shapes.circle(canvas.x - tip, canvas.y - top_y + 0.45, 0.13)
        canvas.lay(bulb, canvas.ink(subject.second_colour))


def _lay_body(subject: Subject, canvas: Canvas) -> None:
    if subject.kind == "shape":
        distance = shapes.shape_distance(subject.shape, canvas.x, canvas.y)
        canvas.lay_rimmed(distance, _main_colour(subject, canvas))
        return
    second = canvas.ink(subject.second_colour)
    fused: Array | None = None
    for part in subject.parts:
        distance = shapes.part_distance(part, canvas.x, canvas.y)
        if part.paint == 1:
            canvas.lay_rimmed(distance, second)
        else:
            fused = distance if fused is None else shapes.smooth_union(fused, distance, 0.18)
    _lay_antennae(subject, canvas)
    if fused is not None:
        canvas.lay_rimmed(fused, _main_colour(subject, canvas))


def _lay_eyes(subject: Subject, canvas: Canvas) -> None:
    face_x, face_y = subject.face
    radius = {1: 0.27, 2: 0.2, 3: 0.18, 4: 0.155}[subject.eyes]
    for position in range(subject.eyes):
        offset = (position - (subject.eyes - 1) / 2.0) * 2.15 * radius
        dx, dy = canvas.x - face_x - offset, canvas.y - face_y
        canvas.lay(shapes.circle(dx, dy, radius), _BRIGHT)
        canvas.lay(shapes.circle(dx, dy - 0.04, 0.55 * radius), _DARK)


def _lay_hat(subject: Subject, canvas: Canvas) -> None:
    dx, dy = canvas.x - subject.top[0], canvas.y - subject.top[1]
    ink = canvas.ink(subject.accessory_colour)
    canvas.lay_rimmed(shapes.box(dx, dy + 0.42, 0.36, 0.4), ink)
    canvas.lay(shapes.box(dx, dy + 0.17, 0.36, 0.08), _DARK)
    canvas.lay_rimmed(shapes.box(dx, dy, 0.66, 0.12), ink)


def _lay_scarf(subject: Subject, canvas: Canvas) -> None:
    dx, dy = canvas.x - subject.face[0], canvas.y - subject.face[1] - 0.5
    ink = canvas.ink(subject.accessory_colour)
    stripes = np.clip(0.5 + 3.0 * np.sin(11.0 * dx), 0.0, 1.0)[..., None]
    canvas.lay_rimmed(shapes.box(dx - 0.42, dy - 0.32, 0.15, 0.4), ink)
    canvas.lay_rimmed(shapes.box(dx, dy - 0.1 * np.cos(2.0 * dx), 0.72, 0.17), ink + (_BRIGHT - ink) * stripes)


def _lay_glasses(subject: Subject, canvas: Canvas) -> None:
    dx, dy = canvas.x - subject.face[0], canvas.y - subject.face[1]
    lens = canvas.ink(subject.accessory_colour) * 0.35 + _BRIGHT * 0.65
    canvas.lay(shapes.box(dx, dy, 0.85, 0.06), _DARK)
    for side in (-0.36, 0.36):
        disc = shapes.circle(dx - side, dy, 0.36)
        canvas.lay(disc, _DARK)
        canvas.lay(disc + 0.12, lens)
        canvas.lay(shapes.circle(dx - side, dy - 0.02, 0.1), _DARK)


def _lay_balloon(subject: Subject, canvas: Canvas) -> None:
    dx, dy = canvas.x - subject.top[0] - 0.95, canvas.y - subject.top[1] + 0.3
    canvas.lay(np.maximum(np.abs(dx + 0.05) - 0.04, np.abs(dy - 0.75) - 0.5), _DARK)
    canvas.lay_rimmed(shapes.ellipse(dx, dy, 0.4, 0.48), canvas.ink(subject.accessory_colour))


_ACCESSORIES = {
    "hat": _lay_hat,
    "scarf": _lay_scarf,
    "glasses": _lay_glasses,
    "balloon": _lay_balloon,
}


def paint_subject(subject: Subject, x: Array, y: Array, softness: Array, look: str) -> Canvas:
    """Paint one subject on an empty canvas.

    Args:
        subject: What to paint.
        x: Subject coordinates, to the right, shape (T, H, W).
        y: Subject coordinates, downwards, same shape.
        softness: Width of one pixel in subject units, broadcastable to ``x``.
        look: ``"flat"`` or ``"outline"``.

    Returns:
        The canvas: RGB where there is coverage, and the coverage.
    """
    colour = np.zeros((*x.shape, 3), dtype=np.float32)
    canvas = Canvas(x, y, softness, look, colour, np.zeros(x.shape, dtype=np.float32))
    if subject.accessory == "balloon":
        _lay_balloon(subject, canvas)
    _lay_body(subject, canvas)
    if subject.accessory != "glasses":
        _lay_eyes(subject, canvas)
    if subject.accessory not in ("none", "balloon"):
        _ACCESSORIES[subject.accessory](subject, canvas)
    return canvas
