"""Captions of scenes: a grammar with synonyms and varied order, from terse to full."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline_lib.world import phrases
from pipeline_lib.world.scene import Scene, Subject


@dataclass(frozen=True)
class CaptionParts:
    """The parts of one caption; a part that is not mentioned is an empty string.

    Attributes:
        class_noun: ``"creature"`` or the shape's word; both joined by ``" and "`` for a pair.
        static: How the subjects look: ``"a striped creature wearing a hat"``.
        motion: How they move: ``"bouncing"``.
        camera: How the camera moves.
        background: Where it is.
        light: When it is.
    """

    class_noun: str
    static: str
    motion: str
    camera: str
    background: str
    light: str


@dataclass(frozen=True, kw_only=True)
class CaptionStyle:
    """How much is said.

    Attributes:
        image: Describe one frame: no motion and no camera.
        full: Say everything, in canonical words and order.
        general_share: Probability that a creature is only called a creature.
        mention: Probability of naming motion, background, light or camera, each.
    """

    image: bool = False
    full: bool = False
    general_share: float = 0.35
    mention: float = 0.82


def _say(rng: np.random.Generator, options: tuple[str, ...], style: CaptionStyle) -> str:
    if style.full or rng.random() < 0.6:
        return options[0]
    return options[int(rng.integers(len(options)))]


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _accessory(subject: Subject, rng: np.random.Generator, style: CaptionStyle) -> str:
    if subject.accessory == "none" or (not style.full and rng.random() < 0.12):
        return ""
    phrase = _say(rng, phrases.ACCESSORY_PHRASES[subject.accessory], style)
    coloured = not style.full and rng.random() < 0.2
    return phrase.format(f"{subject.accessory_colour} " if coloured else "")


def _details(subject: Subject, rng: np.random.Generator, style: CaptionStyle) -> list[str]:
    """Eyes and antennae of a creature, when mentioned."""
    said = []
    if subject.kind == "creature":
        if style.full or rng.random() < 0.35:
            said.append(phrases.EYE_PHRASES[subject.eyes])
        if subject.antennae and (style.full or rng.random() < 0.35):
            said.append("antennae" if subject.antennae > 1 else "an antenna")
    return said


def _adjectives(subject: Subject, rng: np.random.Generator, style: CaptionStyle) -> list[str]:
    words = []
    shape = subject.kind == "shape"
    if subject.texture != "plain" and (style.full or rng.random() < (0.85 if shape else 0.6)):
        words.append(_say(rng, phrases.TEXTURE_PHRASES[subject.texture], style))
    if style.full or rng.random() < (0.95 if shape else 0.7):
        colour = _say(rng, phrases.COLOUR_PHRASES[subject.colour], style)
        if not shape and (style.full or rng.random() < 0.4):
            colour += f" and {subject.second_colour}"
        words.append(colour)
    return words


def subject_phrase(subject: Subject, rng: np.random.Generator, style: CaptionStyle) -> str:
    """Describe one subject's look.

    Args:
        subject: The subject.
        rng: Source of the choice of words.
        style: How much is said.

    Returns:
        A noun phrase with its article.
    """
    noun = _say(rng, phrases.SHAPE_PHRASES[subject.shape], style)
    general = subject.kind == "creature" and not style.full and rng.random() < style.general_share
    words = [] if general else _adjectives(subject, rng, style)
    details = [] if general else _details(subject, rng, style)
    phrase = _article(" ".join([*words, noun]))
    if details:
        phrase += " with " + " and ".join(details)
    accessory = _accessory(subject, rng, style)
    return f"{phrase} {accessory}" if accessory else phrase


def motion_phrase(subject: Subject, rng: np.random.Generator, style: CaptionStyle) -> str:
    """Describe one subject's motion by a participle."""
    motion = subject.motion
    if motion.name != "free":
        return _say(rng, phrases.MOTION_PHRASES[motion.name], style)
    options = phrases.free_motion_phrases(motion)
    return options[0] if style.full else options[int(rng.integers(len(options)))]


def _mentioned(rng: np.random.Generator, style: CaptionStyle, chance: float) -> bool:
    return style.full or rng.random() < chance


def caption_parts(scene: Scene, rng: np.random.Generator, style: CaptionStyle | None = None) -> CaptionParts:
    """Choose words for a scene.

    Args:
        scene: The scene.
        rng: Source of the choice of words.
        style: How much is said; varied by default.

    Returns:
        The parts; joined by :func:`join_parts`.
    """
    style = style or CaptionStyle()
    looks = [subject_phrase(subject, rng, style) for subject in scene.subjects]
    if len(looks) == 2 and _mentioned(rng, style, 0.3):
        looks = [f"{looks[0]} on the left", f"{looks[1]} on the right"]
    moves = [motion_phrase(subject, rng, style) for subject in scene.subjects]
    motion = moves[0]
    if len(moves) == 2:
        motion = f"both {moves[0]}" if moves[0] == moves[1] else f"{moves[0]} and {moves[1]}"
    with_motion = not style.image and _mentioned(rng, style, style.mention)
    plain_light = 0.2 if scene.light == "day" else style.mention
    plain_camera = 0.12 if scene.camera.name == "static" else style.mention
    with_camera = _mentioned(rng, style, plain_camera) and not style.image
    return CaptionParts(
        class_noun=" and ".join(subject.shape for subject in scene.subjects),
        static=" and ".join(looks),
        motion=motion if with_motion else "",
        camera=_say(rng, phrases.CAMERA_PHRASES[scene.camera.name], style) if with_camera else "",
        background=_say(rng, phrases.BACKGROUND_PHRASES[scene.backdrop.name], style)
        if _mentioned(rng, style, style.mention)
        else "",
        light=_say(rng, phrases.LIGHT_PHRASES[scene.light], style) if _mentioned(rng, style, plain_light) else "",
    )


def _words(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def join_parts(parts: CaptionParts, order: int = 0) -> str:
    """Put the parts together.

    Args:
        parts: The parts.
        order: One of the five orders, 0 … 4; 0 is canonical.

    Returns:
        One caption, in lower case.
    """
    place = _words(parts.background, parts.light)
    if order == 1 and place:
        clause = _words(parts.static, "is" if parts.motion else "", parts.motion)
        sentence = f"{place}, {clause}"
    elif order == 2:
        sentence = ", ".join(part for part in (parts.static, parts.motion, parts.background, parts.light) if part)
    elif order == 3:
        sentence = _words("a video of" if parts.motion else "a picture of", parts.static)
        sentence = _words(sentence, parts.motion, place)
    elif order == 4 and parts.light:
        sentence = f"{parts.light}, {_words(parts.static, parts.motion, parts.background)}"
    else:
        sentence = _words(parts.static, parts.motion, place)
    return f"{sentence}, {parts.camera}" if parts.camera else sentence


def caption(scene: Scene, rng: np.random.Generator, style: CaptionStyle | None = None) -> str:
    """Write one caption of a scene.

    Args:
        scene: The scene.
        rng: Source of the choice of words and order.
        style: How much is said; varied by default.

    Returns:
        The caption.
    """
    style = style or CaptionStyle()
    parts = caption_parts(scene, rng, style)
    return join_parts(parts, 0 if style.full else int(rng.choice([0, 0, 0, 1, 2, 3, 4])))
