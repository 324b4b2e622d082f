"""Batches of single frames with truth: cached, decoded, freshly drawn, and without a subject."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline_lib.pocket import clip_cache
from pipeline_lib.pocket.judge import distractors
from pipeline_lib.pocket.judge.truth_table import (
    MOST_SUBJECTS,
    POSE_SIZE,
    SUBJECT_WORDS,
    FrameTable,
    frame_labels,
    frozen,
    poses,
    subject_labels,
)
from pipeline_lib.world.render import render
from pipeline_lib.world.scene import Scene

_FAR_TURN = 0.7  # radians
_TURNED_SHARE = 0.3


def table_of_scene(scene: Scene, frame: int) -> FrameTable:
    """Render one moment of a scene with its truth.

    Args:
        scene: the scene.
        frame: which frame.

    Returns:
        A table of one row.
    """
    moment = frozen(scene, frame)
    clip = render(moment)
    masks = np.zeros((1, MOST_SUBJECTS, *clip.frames.shape[1:3]), dtype=bool)
    masks[0, : len(clip.masks)] = clip.masks[:, 0]
    return FrameTable(
        frames=clip.frames,
        poses=poses(moment),
        labels=subject_labels(moment)[None],
        scene_labels=frame_labels(moment)[None],
        masks=masks,
        mask_known=np.array([True]),
    )


def table_without_subject(pictures: npt.NDArray[np.uint8]) -> FrameTable:
    """Pictures on which the judge is to see nobody.

    Args:
        pictures: shape (N, 64, 64, 3), uint8.

    Returns:
        Their table; background and light are not known.
    """
    count = len(pictures)
    return FrameTable(
        frames=pictures,
        poses=np.full((count, MOST_SUBJECTS, POSE_SIZE), np.nan, dtype=np.float32),
        labels=np.full((count, MOST_SUBJECTS, len(SUBJECT_WORDS)), -1, dtype=np.int64),
        scene_labels=np.full((count, 2), -1, dtype=np.int64),
        masks=np.zeros((count, MOST_SUBJECTS, *pictures.shape[1:3]), dtype=bool),
        mask_known=np.ones(count, dtype=bool),
    )


class _CachedClips:
    """One shard of clips, its truth worked out when it is loaded."""

    def __init__(self, frames: npt.NDArray[np.uint8], masks: npt.NDArray[np.bool_], scenes: tuple[Scene, ...]) -> None:
        self.frames, self.union = frames, masks
        self.poses = np.stack([poses(scene) for scene in scenes])
        self.labels = np.stack([subject_labels(scene) for scene in scenes])
        self.scene_labels = np.stack([frame_labels(scene) for scene in scenes])
        away = np.abs(np.angle(np.exp(1j * np.nan_to_num(self.poses[..., 3])))).max(axis=2)
        self.turned = np.argwhere(away > _FAR_TURN)

    def table(self, rng: np.random.Generator, count: int) -> FrameTable:
        clip = rng.integers(len(self.frames), size=count)
        frame = rng.integers(self.frames.shape[1], size=count)
        # Most subjects stand upright; without more turned ones a spin would not be followed.
        again = rng.random(count) < _TURNED_SHARE
        if len(self.turned) and again.any():
            chosen = self.turned[rng.integers(len(self.turned), size=int(again.sum()))]
            clip[again], frame[again] = chosen[:, 0], chosen[:, 1]
        masks = np.zeros((count, MOST_SUBJECTS, *self.union.shape[2:]), dtype=bool)
        masks[:, 0] = self.union[clip, frame]
        return FrameTable(
            frames=self.frames[clip, frame],
            poses=self.poses[clip, frame],
            labels=self.labels[clip],
            scene_labels=self.scene_labels[clip],
            masks=masks,
            mask_known=self.labels[clip, 1, 0] < 0,
        )


class FrameSource:
    """Draws batches; batch ``step`` depends on nothing but the seed and the step.

    Args:
        clips: the clip cache.
        decoded: folder of :func:`decoded.write_decoded`.
        seed: seed of this judge.
        shards: how many shards of the cache to read.
        distractor_count: pictures without a subject per kind that are drawn once and kept.
    """

    def __init__(self, clips: Path, decoded: Path, seed: int, *, shards: int = 12, distractor_count: int = 700) -> None:
        self.seed = seed
        self.decoded: list[_CachedClips] = []
        self.clips: list[_CachedClips] = []
        for number in clip_cache.shards_present(clips)[:shards]:
            shard = clip_cache.read_shard(clips, number)
            self.clips.append(_CachedClips(shard.frames, shard.masks, shard.scenes))
            path = decoded / f"decoded_{number:05d}.npy"
            if path.exists():
                frames = np.load(path)
                kept = len(frames)
                self.decoded.append(_CachedClips(frames, shard.masks[:kept], shard.scenes[:kept]))
        drawn = [
            distractors.distractor(kind, seed, index) for kind in distractors.KINDS for index in range(distractor_count)
        ]
        self.distractors = np.stack(drawn)

    def generator(self, step: int, stream: int) -> np.random.Generator:
        """The counter-based generator of one step."""
        sequence = np.random.SeedSequence(entropy=(self.seed, step, stream))
        return np.random.Generator(np.random.Philox(sequence))

    def cached(self, rng: np.random.Generator, count: int, decoded: int) -> FrameTable:
        """Frames of the cache, some of them after an autoencoder.

        Args:
            rng: source of the draw.
            count: rendered frames.
            decoded: decoded frames; rendered ones when there are none.

        Returns:
            The frames.
        """
        tables = []
        for clips, share in ((self.clips, count), (self.decoded or self.clips, decoded)):
            parts = rng.multinomial(share, np.full(len(clips), 1.0 / len(clips)))
            tables += [shard.table(rng, int(part)) for shard, part in zip(clips, parts, strict=True) if part]
        return FrameTable.join(tables)

    def without_subject(self, rng: np.random.Generator, count: int) -> FrameTable:
        """Pictures without a subject."""
        return table_without_subject(self.distractors[rng.integers(len(self.distractors), size=count)])
