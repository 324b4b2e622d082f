"""What the pocket segmenter learns from: frames, words for what to find, and the mask that the words name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline_lib.pocket import clip_cache
from pipeline_lib.pocket.pictures import natural_picture
from pipeline_lib.pocket.world_settings import TRAINING_SEED
from pipeline_lib.world import phrases, vocabulary
from pipeline_lib.world.captions import CaptionStyle, subject_phrase
from pipeline_lib.world.render import render
from pipeline_lib.world.sampling import SceneMix, sample_scene, scene_generator
from pipeline_lib.world.scene import Scene, Subject

Frames = npt.NDArray[np.uint8]
Masks = npt.NDArray[np.bool_]

ANYTHING = ("thing", "subject", "monster")
"""Words that name whatever subject there is."""
_PAIRS = SceneMix(two_share=1.0)
_PAIR_START = 1_000_000  # scene numbers that the clip cache never reaches


@dataclass(frozen=True)
class Query:
    """Words, and what they must fit; None fits everything.

    Attributes:
        text: the words.
        shape: of the subject.
        colour: one of its colours.
        texture: of the subject.
        nothing: the words name no subject at all.
    """

    text: str
    shape: str | None = None
    colour: str | None = None
    texture: str | None = None
    nothing: bool = False

    def names(self, subject: Subject) -> bool:
        """Whether the words name that subject; of a creature either colour will do."""
        colours = (subject.colour, subject.second_colour) if subject.kind == "creature" else (subject.colour,)
        return not self.nothing and (
            self.shape in (None, subject.shape)
            and (self.colour is None or self.colour in colours)
            and self.texture in (None, subject.texture)
        )


def _one(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _with_article(words: str, draw: float) -> str:
    if draw < 0.5:
        return words
    return f"the {words}" if draw < 0.7 else f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _worded(shape: str | None, colour: str | None, texture: str | None, rng: np.random.Generator) -> Query:
    words = []
    if texture is not None:
        words.append(_one(rng, phrases.TEXTURE_PHRASES[texture]))
    if colour is not None:
        words.append(_one(rng, phrases.COLOUR_PHRASES[colour]))
    words.append(_one(rng, ANYTHING) if shape is None else _one(rng, phrases.SHAPE_PHRASES[shape]))
    return Query(_with_article(" ".join(words), rng.random()), shape, colour, texture)


def true_query(subject: Subject, rng: np.random.Generator) -> Query:
    """Words that name a subject: its noun, often its colour or texture, sometimes its full phrase.

    Args:
        subject: one of a scene's.
        rng: source of the choice of words.

    Returns:
        A query that fits it; it may fit others too.
    """
    if rng.random() < 0.25:
        # The full phrase may leave colours out; what it must fit is the noun, which never is.
        text = subject_phrase(subject, rng, CaptionStyle(full=True, image=True))
        return Query(text, subject.shape, subject.colour, subject.texture)
    shape = subject.shape if rng.random() < 0.85 else None
    second = subject.kind == "creature" and rng.random() < 0.25
    colour = (subject.second_colour if second else subject.colour) if rng.random() < 0.5 else None
    texture = subject.texture if subject.texture != "plain" and rng.random() < 0.25 else None
    return _worded(shape, colour, texture, rng)


def false_query(scene: Scene, rng: np.random.Generator) -> Query:
    """Words that name nothing in a scene: another noun, another colour, or no words.

    Args:
        scene: what is seen.
        rng: source of the choice.

    Returns:
        A query that fits no subject of the scene.
    """
    if rng.random() < 0.15:
        return Query("", nothing=True)
    seen = [subject.shape for subject in scene.subjects]
    colours = {word for one in scene.subjects for word in (one.colour, one.second_colour)}
    if rng.random() < 0.5:
        other = tuple(word for word in (*vocabulary.SHAPES, "creature", "creature") if word not in seen)
        return _worded(_one(rng, other), None, None, rng)
    away = tuple(word for word in vocabulary.COLOURS if word not in colours)
    shape = _one(rng, tuple(seen)) if rng.random() < 0.7 else None
    return _worded(shape, _one(rng, away), None, rng)


@dataclass(frozen=True)
class Seen:
    """Frames of one scene.

    Attributes:
        scene: the scene; without subjects for an empty place or a picture of another world.
        frames: shape (T, H, W, 3), uint8.
        masks: per subject, shape (S, T, H, W), bool.
    """

    scene: Scene
    frames: Frames
    masks: Masks

    def target(self, query: Query, frame: int) -> Masks:
        """The mask of all that a query names, shape (H, W)."""
        named = [self.masks[place, frame] for place, one in enumerate(self.scene.subjects) if query.names(one)]
        return np.any(named, axis=0) if named else np.zeros(self.frames.shape[1:3], dtype=bool)


def _empty(scene: Scene, frames: Frames) -> Seen:
    return Seen(replace(scene, subjects=()), frames, np.zeros((0, *frames.shape[:3]), dtype=bool))


def _of_shard(shard: clip_cache.Shard, index: int, pick: list[int]) -> Seen:
    scene = shard.scenes[index]
    # The cache keeps the union of masks: a pair's own masks are rendered again, of its first frames.
    if len(scene.subjects) == 1:
        return Seen(scene, shard.frames[index][pick], shard.masks[index][pick][None])
    clip = render(replace(scene, num_frames=len(pick)))
    return Seen(scene, clip.frames, clip.masks)


class QuerySource:
    """Frames with queries and masks, from the clip cache, more pairs, empty places and other pictures.

    Args:
        folder: the clip cache.
        shards: how many shards to read at most.
        each: frames kept of a clip.
    """

    def __init__(self, folder: Path, shards: int = 24, each: int = 4) -> None:
        rng = scene_generator(TRAINING_SEED, 0, stream=21)
        self.single: list[Seen] = []
        self.paired: list[Seen] = []
        for number in clip_cache.shards_present(folder)[:shards]:
            shard = clip_cache.read_shard(folder, number)
            for index in range(len(shard.scenes)):
                pick = sorted(rng.choice(shard.frames.shape[1], each, replace=False).tolist())
                seen = _of_shard(shard, index, pick)
                (self.single if len(seen.scene.subjects) == 1 else self.paired).append(seen)
        extra = len(self.single) // 6
        self.paired += [_fresh_pair(index, each) for index in range(extra)]
        self.empty = [_empty_place(index) for index in range(extra // 2)]
        self.empty += [_other_picture(index) for index in range(extra // 2)]

    def batch(self, step: int, size: int) -> tuple[Frames, list[str], npt.NDArray[np.float32]]:
        """Frames, words and masks of one step; every other frame is mirrored.

        Args:
            step: counter of the draw.
            size: frames.

        Returns:
            Shapes (B, H, W, 3) and (B, H, W), and B texts.
        """
        rng = scene_generator(TRAINING_SEED, step, stream=22)
        frames, texts, masks = [], [], []
        for _ in range(size):
            seen, query = self._draw(rng)
            frame = int(rng.integers(len(seen.frames)))
            turn = slice(None, None, -1 if rng.random() < 0.5 else 1)
            frames.append(seen.frames[frame][:, turn])
            texts.append(query.text)
            masks.append(seen.target(query, frame)[:, turn])
        return np.stack(frames), texts, np.stack(masks).astype(np.float32)

    def _draw(self, rng: np.random.Generator) -> tuple[Seen, Query]:
        draw = rng.random()
        if draw < 0.08:
            seen = self.empty[int(rng.integers(len(self.empty)))]
            other = self.single[int(rng.integers(len(self.single)))]
            return seen, true_query(other.scene.subjects[0], rng)
        group = self.paired if draw < 0.5 else self.single
        seen = group[int(rng.integers(len(group)))]
        if rng.random() < 0.15:
            return seen, false_query(seen.scene, rng)
        return seen, true_query(seen.scene.subjects[int(rng.integers(len(seen.scene.subjects)))], rng)


def _fresh_pair(index: int, each: int) -> Seen:
    scene = replace(sample_scene(TRAINING_SEED, _PAIR_START + index, _PAIRS), num_frames=each)
    clip = render(scene)
    return Seen(scene, clip.frames, clip.masks)


def _empty_place(index: int) -> Seen:
    scene = replace(sample_scene(TRAINING_SEED, _PAIR_START + index), num_frames=1)
    return _empty(scene, render(replace(scene, subjects=())).frames)


def _other_picture(index: int) -> Seen:
    rng = scene_generator(TRAINING_SEED, index, stream=23)
    return _empty(sample_scene(TRAINING_SEED, index), natural_picture(rng)[None])
