"""Many subjects, each seen several times: elsewhere, otherwise lit, in another pose, with another accessory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline_lib.pocket.judge.twins import near_twin, shown_kinds
from pipeline_lib.world import vocabulary
from pipeline_lib.world.motion import channel_values, free_motion, named_motion
from pipeline_lib.world.render import render
from pipeline_lib.world.sampling import (
    SceneMix,
    sample_backdrop,
    sample_creature,
    sample_light,
    sample_shape,
    scene_generator,
)
from pipeline_lib.world.scene import Camera, Channel, Motion, Scene, Subject

_STREAM_SUBJECTS, _STREAM_VIEWS = 70, 71
_CHANNELS = ("horizontal", "vertical", "angle", "size", "stretch")


@dataclass(frozen=True)
class SubjectViews:
    """Pictures of subjects.

    Attributes:
        frames: shape (N, V, 64, 64, 3), uint8: V views of each of N subjects.
        masks: where the subject is, shape (N, V, 64, 64), bool.
    """

    frames: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.bool_]


def training_subjects(seed: int, creatures: int, twins: int) -> list[Subject]:
    """Subjects of the training world, each one an identity of its own.

    Args:
        seed: seed of the draws.
        creatures: how many creatures.
        twins: how many of them have a near-twin, one attribute changed, as another subject.

    Returns:
        Every plain shape that training scenes may show, then the creatures, then the twins.
    """
    rng = scene_generator(seed, 0, _STREAM_SUBJECTS)
    mix = SceneMix(accessory_share=0.0)
    triples = product(vocabulary.SHAPES, vocabulary.COLOURS, vocabulary.TEXTURES)
    kinds = [triple for triple in triples if triple not in vocabulary.HELD_OUT_TRIPLES]
    shapes = [_named_shape(rng, mix, *kind) for kind in kinds]
    drawn = [sample_creature(rng, mix) for _ in range(creatures)]
    changed = []
    for subject in drawn[:twins]:
        options = shown_kinds(subject)
        changed.append(near_twin(subject, rng, options[int(rng.integers(len(options)))]))
    return [*shapes, *drawn, *changed]


def _named_shape(rng: np.random.Generator, mix: SceneMix, shape: str, colour: str, texture: str) -> Subject:
    drawn = sample_shape(rng, mix)
    second = "brown" if colour == "white" else "white"
    return replace(
        drawn,
        shape=shape,
        colour=colour,
        second_colour=second,
        texture=texture,
        eyes=1 if shape in ("moon", "ring") else 2,
    )


def posed(motion: Motion, frame: int) -> Motion:
    """A motion that stands where another one is at one frame.

    Args:
        motion: any motion.
        frame: which of the 13 frames.

    Returns:
        Constant channels; a one-frame scene shows that moment.
    """
    told = {name: float(channel_values(getattr(motion, name), vocabulary.NUM_FRAMES)[frame]) for name in _CHANNELS}
    # A drift is `drift * (time - 1/2)`, and a one-frame scene is at time 0.
    return Motion("free", **{name: Channel(drift=-2.0 * value) for name, value in told.items()})


def view_of(subject: Subject, rng: np.random.Generator, accessory_share: float = 0.3) -> Scene:
    """A one-frame scene of a subject, everything but its look drawn anew.

    Args:
        subject: whom to show.
        rng: source of the draw.
        accessory_share: how often it wears something.

    Returns:
        The scene.
    """
    named = vocabulary.MOTIONS[int(rng.integers(len(vocabulary.MOTIONS)))]
    motion = free_motion(rng) if rng.random() < 0.5 else named_motion(named, rng)
    worn = vocabulary.ACCESSORIES[int(rng.integers(1, len(vocabulary.ACCESSORIES)))]
    ink = vocabulary.COLOURS[int(rng.integers(len(vocabulary.COLOURS)))]
    shown = replace(
        subject,
        accessory=worn if rng.random() < accessory_share else "none",
        accessory_colour=ink,
        position=(float(rng.uniform(-0.25, 0.25)), float(rng.uniform(-0.02, 0.25))),
        size=float(rng.uniform(0.4, 0.6)),
        motion=posed(motion, int(rng.integers(vocabulary.NUM_FRAMES))),
    )
    return Scene((shown,), sample_backdrop(rng), sample_light(rng), Camera("static", 0.0), 1)


def render_views(subjects: list[Subject], seed: int, views: int, accessory_share: float = 0.3) -> SubjectViews:
    """Show each subject several times.

    Args:
        subjects: whom to show.
        seed: seed of the views.
        views: how many of each; a view in which nothing of the subject is visible is drawn again.
        accessory_share: how often a subject wears something.

    Returns:
        The pictures.
    """
    size = vocabulary.FRAME_SIZE
    frames = np.empty((len(subjects), views, size, size, 3), np.uint8)
    masks = np.empty((len(subjects), views, size, size), bool)
    for index, subject in enumerate(subjects):
        rng = scene_generator(seed, index, _STREAM_VIEWS)
        for view in range(views):
            clip = render(view_of(subject, rng, accessory_share))
            while clip.subject_mask.sum() < 60:
                clip = render(view_of(subject, rng, accessory_share))
            frames[index, view], masks[index, view] = clip.frames[0], clip.subject_mask[0]
    return SubjectViews(frames, masks)


def cached_views(path: Path, subjects: list[Subject], seed: int, views: int) -> SubjectViews:
    """Views on disk, rendered when they are not there yet.

    Args:
        path: the file.
        subjects: whom to show.
        seed: seed of the views.
        views: how many of each.

    Returns:
        The pictures.
    """
    if not path.exists():
        made = render_views(subjects, seed, views)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".partial.npz")
        np.savez(temporary, frames=made.frames, masks=np.packbits(made.masks, axis=-1))
        temporary.replace(path)
    with np.load(path) as record:
        masks = np.unpackbits(record["masks"], axis=-1).astype(bool)
        return SubjectViews(record["frames"], masks)
