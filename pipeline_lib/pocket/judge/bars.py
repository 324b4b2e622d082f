"""The judge's own bars: attributes, abstention, tracks, masks, identity, agreement of the two judges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline_lib.pocket.judge import identity, truth
from pipeline_lib.pocket.judge.distractors import KINDS, distractor
from pipeline_lib.pocket.judge.grading import ASKED, answerable, grade_subjects, grade_surroundings
from pipeline_lib.pocket.judge.judge import Judge
from pipeline_lib.pocket.judge.reading import Reading
from pipeline_lib.pocket.judge.tally import Share, Tally
from pipeline_lib.pocket.judge.truth_table import poses
from pipeline_lib.pocket.world_settings import HELD_OUT_SEED
from pipeline_lib.world.render import RenderedClip, render
from pipeline_lib.world.sampling import sample_scene
from pipeline_lib.world.scene import Scene

Frames = npt.NDArray[np.uint8]
Change = Callable[[Frames], Frames]
_CHECK_STRIDE = 3
_CHECK_SEED = 515_003  # impostors that neither the gallery nor its threshold has seen


@dataclass(frozen=True)
class HeldOutClips:
    """Held-out scenes, rendered once for several measurements.

    Attributes:
        scenes: the scene records.
        clips: their renders.
    """

    scenes: tuple[Scene, ...]
    clips: tuple[RenderedClip, ...]

    @staticmethod
    def draw(count: int) -> HeldOutClips:
        """The first ``count`` scenes of ``HELD_OUT_SEED``."""
        scenes = tuple(sample_scene(HELD_OUT_SEED, index) for index in range(count))
        return HeldOutClips(scenes, tuple(render(scene) for scene in scenes))


def attribute_bars(readings: list[Reading], drawn: HeldOutClips, frames: slice = slice(None)) -> dict[str, Share]:
    """Share of right answers per attribute.

    Args:
        readings: one per clip.
        drawn: the clips.
        frames: which of their frames were read.

    Returns:
        Shares by attribute, ``number`` and ``binding`` among them.
    """
    tally = Tally()
    for reading, scene, clip in zip(readings, drawn.scenes, drawn.clips, strict=True):
        grade_surroundings(tally, scene, reading)
        grade_subjects(tally, scene, reading, answerable(scene, clip, frames))
    return tally.shares()


def left_out(drawn: HeldOutClips) -> dict[str, Share]:
    """Share of subjects whose attribute cannot be told from the clip, by attribute."""
    tally = Tally()
    for scene, clip in zip(drawn.scenes, drawn.clips, strict=True):
        for asked in answerable(scene, clip):
            for name in ASKED:
                tally.add(name, name not in asked)
    return tally.shares()


def read_all(
    judge: Judge, drawn: HeldOutClips, change: Change | None = None, frames: slice = slice(None)
) -> list[Reading]:
    """Read every clip.

    Args:
        judge: who reads.
        drawn: the clips.
        change: what happens to the frames first, for example an autoencoder's round trip.
        frames: which frames are read.

    Returns:
        One reading per clip.
    """
    chosen = (clip.frames[frames] for clip in drawn.clips)
    return [judge.read(pictures if change is None else change(pictures)) for pictures in chosen]


def abstention(judge: Judge, count: int) -> dict[str, Share]:
    """Share of pictures without a subject on which the judge says so.

    Args:
        judge: who reads.
        count: pictures per kind.

    Returns:
        Shares by kind, and over all.
    """
    tally = Tally()
    for kind in KINDS:
        for index in range(count):
            empty = not judge.read(distractor(kind, HELD_OUT_SEED, index)[None]).subjects
            tally.add(kind, empty)
            tally.add("all", empty)
    return tally.shares()


def pose_errors(readings: list[Reading], drawn: HeldOutClips) -> dict[str, float]:
    """Median errors of the tracks and the mean mask overlap, over clips whose number of subjects was read right.

    Args:
        readings: one per clip.
        drawn: the clips.

    Returns:
        ``centre`` in pixels, ``angle`` in degrees, ``scale`` as a ratio minus 1, ``mask_iou`` in [0, 1].
    """
    errors, overlaps = [], []
    for reading, scene, clip in zip(readings, drawn.scenes, drawn.clips, strict=True):
        if len(reading.subjects) != len(scene.subjects):
            continue
        overlaps.append(truth.mask_iou(reading, clip).value or 0.0)
        table = poses(scene)
        for which, one in enumerate(reading.subjects):
            off = one.track - table[:, which]
            turn = np.abs(np.angle(np.exp(1j * off[:, 3])))
            errors.append(np.stack([np.hypot(off[:, 0], off[:, 1]), np.rad2deg(turn), np.expm1(np.abs(off[:, 2]))], 1))
    if not errors:
        return {}
    centre, angle, scale = np.nanmedian(np.concatenate(errors), axis=0)
    named = {"centre": centre, "angle": angle, "scale": scale, "mask_iou": np.mean(overlaps)}
    return {name: round(float(value), 4) for name, value in named.items()}


def agreement(first: list[Reading], second: list[Reading]) -> dict[str, Share]:
    """Share of equal answers of two judges on the same clips.

    Args:
        first: readings of the one.
        second: readings of the other.

    Returns:
        Shares by attribute; subjects are compared where both see equally many.
    """
    tally = Tally()
    for one, other in zip(first, second, strict=True):
        tally.add("background", one.background.word == other.background.word)
        tally.add("light", one.light.word == other.light.word)
        if one.camera is not None and other.camera is not None:
            tally.add("camera", one.camera.word == other.camera.word)
        same = len(one.subjects) == len(other.subjects)
        tally.add("number", same)
        for left, right in zip(one.subjects, other.subjects, strict=True) if same else ():
            for name in ("shape", "colour", "texture", "accessory"):
                tally.add(name, left.words[name].word == right.words[name].word)
            if left.motion is not None and right.motion is not None:
                tally.add("motion", left.motion.word == right.motion.word)
    return tally.shares()


def impostor_bars(
    judge: Judge, gallery: identity.Gallery, count: int, concepts: range = identity.FIRST
) -> dict[str, Share]:
    """How often others are taken for a concept: the false-accept rates.

    Args:
        judge: who reads.
        gallery: of the same judge.
        count: strangers, and about as many near-twins of all concepts together.
        concepts: the dozen for which they are taken.

    Returns:
        Shares of frames of fresh random creatures (``stranger``) and of fresh near-twins (``twin``)
        that are named as any concept; neither the gallery nor its threshold has seen them.
    """
    tally = Tally()
    each = -(-count // len(concepts))
    twins = [scene for index in concepts[:count] for scene in identity.twin_scenes(index, _CHECK_SEED, each)]
    for name, scenes in (("stranger", identity.stranger_scenes(_CHECK_SEED, count)), ("twin", twins)):
        for scene in scenes:
            reading = judge.read(render(scene).frames[::_CHECK_STRIDE])
            for score in identity.score_of(reading, concepts):
                tally.add(name, bool(score <= gallery.threshold))
    return tally.shares()
