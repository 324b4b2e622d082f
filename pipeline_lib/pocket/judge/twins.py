"""Near-twins: a subject with exactly one attribute of its look changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pipeline_lib.world import vocabulary
from pipeline_lib.world.render import render
from pipeline_lib.world.scene import Backdrop, Camera, Motion, Part, Scene, Subject

_FORMS = ("ellipse", "box", "triangle")


def _other(rng: np.random.Generator, options: tuple[str, ...], *used: str) -> str:
    left = [word for word in options if word not in used]
    return left[int(rng.integers(len(left)))]


def _with_other_part(rng: np.random.Generator, subject: Subject) -> Subject:
    """Change the form and size of one part, or leave one out, so that it shows."""
    parts = list(subject.parts)
    position = int(rng.integers(len(parts)))
    part: Part = parts[position]
    if part.paint == 1 and rng.random() < 0.5:
        # Limbs come in groups of one form; all of them go, or one would hardly be missed.
        kept = tuple(other for other in parts if (other.form, other.width) != (part.form, part.width))
        return replace(subject, parts=kept)
    grown = float(rng.choice([0.65, 1.45]))
    form = _other(rng, _FORMS, part.form)
    parts[position] = replace(part, form=form, width=part.width * grown, height=part.height / grown**0.5)
    return replace(subject, parts=tuple(parts))


def near_twin(subject: Subject, rng: np.random.Generator, kind: str) -> Subject:
    """Change one attribute.

    Args:
        subject: the subject.
        rng: source of the change.
        kind: one of ``TWIN_KINDS``; ``"part"`` changes a plain shape's word.

    Returns:
        The twin; everything else is equal, the motion included.
    """
    if kind in ("colour", "second_colour"):
        ink = _other(rng, vocabulary.COLOURS, subject.colour, subject.second_colour)
        return replace(subject, colour=ink) if kind == "colour" else replace(subject, second_colour=ink)
    if kind == "texture":
        return replace(subject, texture=_other(rng, vocabulary.TEXTURES, subject.texture))
    if kind == "eyes":
        options = [number for number in range(1, 5) if number != subject.eyes]
        return replace(subject, eyes=int(rng.choice(options)))
    if kind == "antennae":
        options = [number for number in range(4) if number != subject.antennae]
        return replace(subject, antennae=int(rng.choice(options)))
    if subject.kind == "shape":
        return replace(subject, shape=_other(rng, vocabulary.SHAPES, subject.shape))
    return _with_other_part(rng, subject)


TWIN_KINDS = ("colour", "second_colour", "texture", "eyes", "antennae", "part")
"""What a twin may differ in."""


def shown_kinds(subject: Subject) -> tuple[str, ...]:
    """The kinds of ``TWIN_KINDS`` that can be seen on this subject.

    A second colour that paints nothing cannot be seen, and plain shapes have no antennae.
    """
    second = subject.texture != "plain" or subject.antennae > 0 or any(part.paint for part in subject.parts)
    hidden = set() if second else {"second_colour"}
    if subject.kind == "shape":
        hidden |= {"antennae"}
    if subject.accessory == "glasses":
        hidden |= {"eyes"}
    if subject.accessory == "hat":
        hidden |= {"antennae"}
    return tuple(kind for kind in TWIN_KINDS if kind not in hidden)


LEAST_CHANGED = 24
"""Pixels that a twin's change must show in, of about 600 that a subject has: a patch of 5×5."""
_CHANGE = 48


def changed_pixels(subject: Subject, twin: Subject) -> int:
    """Pixels in which two subjects visibly differ when both stand still in daylight.

    Args:
        subject: the one.
        twin: the other.

    Returns:
        How many pixels differ by more than 48 of 255 in some channel.
    """
    pictures = [_portrait(one) for one in (subject, twin)]
    difference = np.abs(pictures[0].astype(np.int16) - pictures[1])
    return int((difference.max(axis=-1) > _CHANGE).sum())


def _portrait(subject: Subject) -> npt.NDArray[np.uint8]:
    still = replace(subject, motion=Motion("still"), position=(0.0, 0.1), size=0.5)
    return render(Scene((still,), Backdrop("room", 0.0, 0.0, 0.0), "day", Camera("static", 0.0), 1)).frames[0]


def near_twins(subject: Subject, rng: np.random.Generator, count: int) -> list[Subject]:
    """Several twins, the kinds in turn.

    Args:
        subject: the subject.
        rng: source of the changes.
        count: how many.

    Returns:
        The twins, each of them visibly different from the subject.
    """
    kinds = shown_kinds(subject)
    twins: list[Subject] = []
    while len(twins) < count:
        twin = near_twin(subject, rng, kinds[len(twins) % len(kinds)])
        if changed_pixels(subject, twin) >= LEAST_CHANGED:
            twins.append(twin)
    return twins
