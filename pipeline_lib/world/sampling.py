"""Drawing scenes: one scene per (seed, index), whatever was drawn before."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline_lib.world import shapes, vocabulary
from pipeline_lib.world.creatures import creature_parts
from pipeline_lib.world.motion import free_motion, named_motion
from pipeline_lib.world.scene import Backdrop, Camera, Motion, Scene, Subject


@dataclass(frozen=True, kw_only=True)
class SceneMix:
    """Shares of what is drawn.

    Attributes:
        creature_share: Probability that a single subject is a creature.
        two_share: Probability of two subjects.
        free_motion_share: Probability that a creature moves freely, not by a named motion.
        accessory_share: Probability of an accessory.
        held_out: Draw shapes only from the held-out attribute triples (for tests).
        num_frames: Length of the clips.
        look: ``"flat"`` or ``"outline"``.
    """

    creature_share: float = 0.55
    two_share: float = 0.18
    free_motion_share: float = 0.5
    accessory_share: float = 0.4
    held_out: bool = False
    num_frames: int = vocabulary.NUM_FRAMES
    look: str = "flat"


def scene_generator(seed: int, index: int, stream: int = 0) -> np.random.Generator:
    """Return the counter-based generator of one scene.

    Args:
        seed: Seed of the whole data set.
        index: Which scene.
        stream: Independent streams of the same scene (0 scene, 1 caption, …).

    Returns:
        A Philox generator.
    """
    sequence = np.random.SeedSequence(entropy=(seed, index, stream))
    return np.random.Generator(np.random.Philox(sequence))


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _other_colour(rng: np.random.Generator, *used: str) -> str:
    return _pick(rng, tuple(word for word in vocabulary.COLOURS if word not in used))


def _triple(rng: np.random.Generator, held_out: bool) -> tuple[str, str, str]:
    while True:
        triple = (
            _pick(rng, vocabulary.SHAPES),
            _pick(rng, vocabulary.COLOURS),
            _pick(rng, vocabulary.TEXTURES),
        )
        if (triple in vocabulary.HELD_OUT_TRIPLES) == held_out:
            return triple


def _accessory(rng: np.random.Generator, mix: SceneMix) -> str:
    if rng.random() >= mix.accessory_share:
        return "none"
    return _pick(rng, vocabulary.ACCESSORIES[1:])


def sample_shape(rng: np.random.Generator, mix: SceneMix) -> Subject:
    """Draw a plain-shape subject, standing still in the middle.

    Args:
        rng: Source of the draw.
        mix: Shares.

    Returns:
        The subject.
    """
    shape, colour, texture = _triple(rng, mix.held_out)
    # The pattern of a plain shape is white (brown on white), so that its colour stays one word.
    second = "brown" if colour == "white" else "white"
    return Subject(
        kind="shape",
        shape=shape,
        colour=colour,
        second_colour=second,
        texture=texture,
        texture_scale=rng.uniform(0.9, 1.1),
        texture_angle=rng.uniform(-0.25, 0.25) + (0.6 if texture == "striped" else 0.0),
        accessory=_accessory(rng, mix),
        accessory_colour=_other_colour(rng, colour),
        eyes=1 if shape in ("moon", "ring") else 2,
        antennae=0,
        parts=(),
        face=shapes.FACES[shape],
        top=shapes.TOPS[shape],
        position=(0.0, 0.0),
        size=rng.uniform(0.48, 0.6),
        motion=Motion("still"),
    )


def sample_creature(rng: np.random.Generator, mix: SceneMix) -> Subject:
    """Draw a creature, standing still in the middle.

    Args:
        rng: Source of the draw.
        mix: Shares.

    Returns:
        The subject.
    """
    parts, face, top = creature_parts(rng)
    colour = _pick(rng, vocabulary.COLOURS)
    second = _other_colour(rng, colour)
    return Subject(
        kind="creature",
        shape="creature",
        colour=colour,
        second_colour=second,
        texture=_pick(rng, vocabulary.TEXTURES),
        texture_scale=rng.uniform(0.85, 1.25),
        texture_angle=rng.uniform(-1.57, 1.57),
        accessory=_accessory(rng, mix),
        accessory_colour=_other_colour(rng, colour, second),
        eyes=int(rng.integers(1, 5)),
        antennae=int(rng.choice([0, 0, 1, 2, 2, 3])),
        parts=parts,
        face=face,
        top=top,
        position=(0.0, 0.0),
        size=rng.uniform(0.46, 0.56),
        motion=Motion("still"),
    )


def _motion(rng: np.random.Generator, subject: Subject, mix: SceneMix) -> Motion:
    if subject.kind == "creature" and rng.random() < mix.free_motion_share:
        return free_motion(rng)
    return named_motion(_pick(rng, vocabulary.MOTIONS), rng)


def _place_one(rng: np.random.Generator, subject: Subject, mix: SceneMix) -> Subject:
    motion = _motion(rng, subject, mix)
    drop = 0.32 if motion.name == "bouncing" else rng.uniform(-0.02, 0.22)
    spread = 0.08 if motion.name.startswith(("sliding", "zig", "orbit")) else 0.28
    return replace(subject, motion=motion, position=(rng.uniform(-spread, spread), drop))


_PAIR_MOTIONS = ("still", "bouncing", "spinning", "swaying", "pulsing", "shaking")


def _place_pair(rng: np.random.Generator, pair: list[Subject]) -> tuple[Subject, ...]:
    placed = []
    for side, subject in zip((-1.0, 1.0), pair, strict=True):
        motion = named_motion(_pick(rng, _PAIR_MOTIONS), rng)
        position = (side * rng.uniform(0.44, 0.52), rng.uniform(0.02, 0.25))
        placed.append(replace(subject, motion=motion, position=position, size=rng.uniform(0.32, 0.4)))
    return tuple(placed)


def sample_backdrop(rng: np.random.Generator, name: str | None = None) -> Backdrop:
    """Draw a background.

    Args:
        rng: Source of the draw.
        name: The word, or None to draw it too.

    Returns:
        The background.
    """
    chosen = name or _pick(rng, vocabulary.BACKGROUNDS)
    return Backdrop(chosen, rng.uniform(-0.15, 0.15), float(rng.random()), float(rng.random()))


def sample_camera(rng: np.random.Generator, name: str | None = None) -> Camera:
    """Draw a camera move: static in most clips.

    Args:
        rng: Source of the draw.
        name: The word, or None to draw it too.

    Returns:
        The camera.
    """
    drawn = "static" if rng.random() < 0.6 else _pick(rng, vocabulary.CAMERAS[1:])
    chosen = name or drawn
    amount = rng.uniform(0.5, 0.7) if chosen == "zoom in" else rng.uniform(0.9, 1.3)
    return Camera(chosen, 0.0 if chosen == "static" else amount)


def sample_light(rng: np.random.Generator) -> str:
    """Draw a light: day in most clips."""
    draw = rng.random()
    return "day" if draw < 0.6 else "dusk" if draw < 0.8 else "night"


def sample_scene(seed: int, index: int, mix: SceneMix | None = None) -> Scene:
    """Draw scene number ``index``; it depends on nothing but the arguments.

    Args:
        seed: Seed of the data set.
        index: Which scene.
        mix: Shares; the training mix when None.

    Returns:
        The scene.
    """
    chosen = mix or SceneMix()
    rng = scene_generator(seed, index)
    count = 2 if rng.random() < chosen.two_share else 1
    drawn: list[Subject] = []
    for _ in range(count):
        creature = not chosen.held_out and rng.random() < chosen.creature_share
        drawn.append(sample_creature(rng, chosen) if creature else sample_shape(rng, chosen))
    placed = (_place_one(rng, drawn[0], chosen),) if count == 1 else _place_pair(rng, drawn)
    return Scene(
        subjects=placed,
        backdrop=sample_backdrop(rng),
        light=sample_light(rng),
        camera=sample_camera(rng),
        num_frames=chosen.num_frames,
        look=chosen.look,
    )
