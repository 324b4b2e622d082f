"""Readings against the world's truth, and which questions have an answer at all.

What cannot be decided from pixels is left out by these rules, which look at the scene and never at
the reading:

- ``colour`` of a creature whose striped or checkered body is the only place where its two colours
  show (no antennae, no part in the second colour), and of a striped or checkered shape in brown and
  white: both colours cover half of it, and neither is the main one; and of a creature that shows its
  main colour on fewer pixels than its second one: nobody would name it by the former;
- ``motion`` of a free motion that moves the same channels as a named one
  (:func:`motion_reading.decidable`), and of a subject that covers 40 pixels in fewer than three
  quarters of the frames;
- ``texture`` of a subject on which another texture would change fewer than 24 pixels (a patch of 5×5) in
  the middle one of its frames: too little of the pattern shows beside eyes, scarf and limbs;
- ``accessory`` and ``texture`` of a subject of which fewer than a quarter of the frames show enough:
  the accessory must change 12 pixels, and the subject must cover 40.

Everything else counts. A subject that was not found, or one too many, makes all of its answers wrong.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipeline_lib.pocket.judge.motion_reading import decidable
from pipeline_lib.pocket.judge.reading import Reading, SubjectReading
from pipeline_lib.pocket.judge.tally import Tally
from pipeline_lib.world.render import RenderedClip, render
from pipeline_lib.world.scene import Scene, Subject
from pipeline_lib.world.vocabulary import COLOURS, TEXTURES

ASKED = frozenset(("shape", "colour", "texture", "accessory", "motion"))
"""Attributes that a subject is asked for."""
_LEAST_ACCESSORY_PIXELS, _LEAST_TEXTURE_PIXELS, _LEAST_PIXELS = 12, 24, 40
_LEAST_CHANGE = 24
_LEAST_FRAMES = 0.25
_MOST = 0.75


def colour_decidable(subject: Subject) -> bool:
    """Whether the main colour can be told from the second one."""
    if subject.texture not in ("striped", "checkered"):
        return True
    if subject.kind == "shape":
        return {subject.colour, subject.second_colour} != {"brown", "white"}
    return subject.antennae > 0 or any(part.paint == 1 for part in subject.parts)


def accessory_shown(scene: Scene, which: int, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Frames in which a subject's accessory changes enough pixels to be seen.

    Args:
        scene: the scene.
        which: index of the subject.
        frames: the rendered scene, shape (T, H, W, 3).

    Returns:
        Shape (T,); all True when there is no accessory.
    """
    subject = scene.subjects[which]
    if subject.accessory == "none":
        return np.ones(len(frames), dtype=bool)
    return _changed(scene, which, frames, replace(subject, accessory="none")) >= _LEAST_ACCESSORY_PIXELS


def _changed(scene: Scene, which: int, frames: npt.NDArray[np.uint8], other: Subject) -> npt.NDArray[np.int64]:
    """Pixels per frame that another subject in one's place would change, shape (T,)."""
    subjects = tuple(other if place == which else one for place, one in enumerate(scene.subjects))
    rendered = render(replace(scene, subjects=subjects)).frames
    changed: npt.NDArray[np.int64] = (np.abs(rendered.astype(np.int16) - frames).max(axis=-1) > _LEAST_CHANGE).sum(
        axis=(1, 2)
    )
    return changed


@lru_cache(maxsize=1024)  # every kind of reading is graded by it
def main_colour_shown(scene: Scene, which: int) -> bool:
    """Whether a creature shows its main colour on at least as many pixels as its second one.

    Args:
        scene: the scene.
        which: index of the subject.

    Returns:
        The answer; always True for plain shapes, whose pattern is white.
    """
    subject = scene.subjects[which]
    if subject.kind == "shape":
        return True
    frames = render(scene).frames
    used = (subject.colour, subject.second_colour, subject.accessory_colour)
    ink = next(word for word in COLOURS if word not in used)
    main = _changed(scene, which, frames, replace(subject, colour=ink)).sum()
    second = _changed(scene, which, frames, replace(subject, second_colour=ink)).sum()
    return bool(main >= second)


@lru_cache(maxsize=1024)
def texture_shown(scene: Scene, which: int) -> bool:
    """Whether enough of a subject's pattern shows to tell it from every other pattern.

    Args:
        scene: the scene.
        which: index of the subject.

    Returns:
        The answer.
    """
    subject, frames = scene.subjects[which], render(scene).frames
    others = [replace(subject, texture=word) for word in TEXTURES if word != subject.texture]
    changed = min(float(np.median(_changed(scene, which, frames, other))) for other in others)
    return changed >= _LEAST_TEXTURE_PIXELS


def answerable(scene: Scene, clip: RenderedClip, frames: slice = slice(None)) -> list[frozenset[str]]:
    """Per subject the attributes that can be told from these frames.

    Args:
        scene: the scene.
        clip: the scene rendered.
        frames: which of its frames are read.

    Returns:
        Names of attributes.
    """
    found = []
    for which, subject in enumerate(scene.subjects):
        names = set(ASKED)
        seen = clip.masks[which].sum(axis=(1, 2)) >= _LEAST_PIXELS
        if seen[frames].mean() < _LEAST_FRAMES:
            names -= {"shape", "colour", "texture", "accessory"}
        if (seen & accessory_shown(scene, which, clip.frames))[frames].mean() < _LEAST_FRAMES:
            names -= {"accessory"}
        if not colour_decidable(subject) or not main_colour_shown(scene, which):
            names -= {"colour"}
        if not texture_shown(scene, which):
            names -= {"texture"}
        if not decidable(subject.motion) or clip.frames[frames].shape[0] < 5 or seen[frames].mean() < _MOST:
            names -= {"motion"}
        found.append(frozenset(names))
    return found


def grade_surroundings(tally: Tally, scene: Scene, reading: Reading) -> None:
    """Count background, light, camera and the number of subjects.

    Args:
        tally: where to count.
        scene: the truth.
        reading: the answers.
    """
    tally.add("background", reading.background.word == scene.backdrop.name)
    tally.add("light", reading.light.word == scene.light)
    if reading.camera is not None:
        tally.add("camera", reading.camera.word == scene.camera.name)
    tally.add("number", len(reading.subjects) == len(scene.subjects))


def _read_word(one: SubjectReading | None, name: str) -> str | None:
    if one is None:
        return None
    if name == "motion":
        return None if one.motion is None else one.motion.word
    return one.words[name].word


def grade_subjects(tally: Tally, scene: Scene, reading: Reading, names: list[frozenset[str]]) -> None:
    """Count the subjects' attributes, sides matched from left to right.

    Args:
        tally: where to count.
        scene: the truth; of a pair the left one comes first.
        reading: the answers.
        names: from :func:`answerable`.
    """
    fits = len(reading.subjects) == len(scene.subjects)
    for which, (subject, asked) in enumerate(zip(scene.subjects, names, strict=True)):
        one = reading.subjects[which] if fits else None
        for name in sorted(asked):
            truth = subject.motion.name if name == "motion" else getattr(subject, name)
            tally.add(name, _read_word(one, name) == truth)
    if len(scene.subjects) == 2 and all({"shape", "colour"} <= asked for asked in names):
        truth_pairs = tuple((subject.shape, subject.colour) for subject in scene.subjects)
        tally.add("binding", reading.binding == truth_pairs)
