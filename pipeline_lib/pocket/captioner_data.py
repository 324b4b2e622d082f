"""What the pocket captioner learns from: clips and pictures, a noun to ask about, and the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pipeline_lib.pocket import clip_cache
from pipeline_lib.pocket.base_places import POSE_NUMBERS, subject_poses
from pipeline_lib.pocket.captioner_language import SILENCE, answer, nouns
from pipeline_lib.pocket.captioner_model import CLIP_GROUPS, TEMPORAL
from pipeline_lib.pocket.pictures import natural_picture
from pipeline_lib.pocket.world_settings import CLIP_FRAMES, SIZE, TRAINING_SEED
from pipeline_lib.world import phrases
from pipeline_lib.world.sampling import scene_generator
from pipeline_lib.world.scene import Camera, Scene

Frames = npt.NDArray[np.uint8]
Cells = npt.NDArray[np.float32]
_MIRRORED = {"sliding left": "sliding right", "sliding right": "sliding left"}
_MIRRORED_CAMERA = {"pan left": "pan right", "pan right": "pan left"}
_STRANGERS = ("dog", "wolf", "cat", "toy", "person", "car", "bird", "bear", "robot", "plant")
_PICTURES = (1, 1, 3)
_NOWHERE = np.zeros((CLIP_GROUPS, 4, 4), np.float32)
_UNPOSED = np.full((CLIP_FRAMES, 2, POSE_NUMBERS), np.nan, np.float32)
# Of a pose: place across and sine of the turn change their sign in a mirror.
_MIRROR = np.array([-1, 1, 1, -1, 1, 1], np.float32)


@dataclass(frozen=True)
class Lesson:
    """One thing shown, asked and answered.

    Attributes:
        frames: shape (T, H, W, 3), uint8.
        noun: what the question calls the subject.
        answer: canonical JSON.
        scene: what is seen; None where it is not of the pocket world.
        which: the subject that is asked about.
        occupancy: share of pixels and frames that show a subject, by pairs of frames and cells of 16×16 pixels,
            shape (7, 4, 4).
        poses: of :func:`~pipeline_lib.pocket.base_places.subject_poses`, shape (13, 2, 6); NaN of elsewhere.
    """

    frames: Frames
    noun: str
    answer: str
    scene: Scene | None
    which: int
    occupancy: Cells
    poses: Cells


def mirrored(scene: Scene) -> Scene:
    """What a mirror does to the words of a scene: left and right change places.

    Args:
        scene: the scene.

    Returns:
        A record to take words from, not to render.
    """
    subjects = tuple(
        replace(one, motion=replace(one.motion, name=_MIRRORED.get(one.motion.name, one.motion.name)))
        for one in scene.subjects
    )
    camera = Camera(_MIRRORED_CAMERA.get(scene.camera.name, scene.camera.name), scene.camera.amount)
    return replace(scene, subjects=subjects, camera=camera)


def asked_subject(scene: Scene, rng: np.random.Generator) -> tuple[int, str]:
    """Which subject to ask about, and what to call it.

    A single subject may be called anything; one of a pair is called by its own noun, and where both
    have the same, the left one is meant, which is the first.

    Args:
        scene: the scene.
        rng: source of the choice.

    Returns:
        Index and bare noun.
    """
    which = int(rng.integers(len(scene.subjects)))
    shape = scene.subjects[which].shape
    if len(scene.subjects) == 1 and rng.random() < 0.3:
        options: tuple[str, ...] = nouns() if rng.random() < 0.6 else _STRANGERS
    else:
        options = phrases.SHAPE_PHRASES[shape]
        which = [subject.shape for subject in scene.subjects].index(shape)
    return which, options[int(rng.integers(len(options)))]


def strange_clip(rng: np.random.Generator) -> Frames:
    """A clip that is not of the pocket world: a natural picture under a moving, zooming camera.

    Args:
        rng: source of the draw.

    Returns:
        Shape (13, 64, 64, 3), uint8.
    """
    picture = natural_picture(rng)
    start, stop = rng.uniform(-14, 14, (2, 2)) * (rng.random() < 0.7)
    near, far = rng.uniform(1.0, 1.5, 2)
    frames = []
    for share in np.linspace(0, 1, CLIP_FRAMES):
        zoom, middle = near + (far - near) * share, start + (stop - start) * share
        move = np.array([[zoom, 0, (1 - zoom) * SIZE / 2 + middle[0]], [0, zoom, (1 - zoom) * SIZE / 2 + middle[1]]])
        frames.append(cv2.warpAffine(picture, move, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT_101))
    return np.stack(frames).astype(np.uint8)


class LessonSource:
    """Lessons from the clip cache, and pictures of elsewhere.

    Args:
        folder: the clip cache.
        shards: how many shards to read at most.
        strangers: how many clips that are not of the pocket world.
    """

    def __init__(self, folder: Path, shards: int = 24, strangers: int = 500) -> None:
        numbers = clip_cache.shards_present(folder)[:shards]
        read = [clip_cache.read_shard(folder, number) for number in numbers]
        self.frames = [shard.frames for shard in read]
        self.scenes = [shard.scenes for shard in read]
        self.occupancy = [cells_of(shard.masks) for shard in read]
        self.poses = [poses_of(shard.scenes) for shard in read]
        self.strange = [strange_clip(scene_generator(TRAINING_SEED, index, stream=31)) for index in range(strangers)]

    def batch(self, step: int, size: int) -> list[Lesson]:
        """The lessons of one step: every fifth step shows pictures, one or three of a clip, the others clips.

        Args:
            step: counter of the draw.
            size: lessons.

        Returns:
            Lessons of equal length.
        """
        rng = scene_generator(TRAINING_SEED, step, stream=32)
        count = _PICTURES[step // 5 % len(_PICTURES)] if step % 5 == 4 else CLIP_FRAMES
        return [self._lesson(rng, count) for _ in range(size)]

    def _lesson(self, rng: np.random.Generator, count: int) -> Lesson:
        if rng.random() < 0.06:
            frames = self.strange[int(rng.integers(len(self.strange)))]
            words = _STRANGERS if rng.random() < 0.5 else nouns()
            noun = words[int(rng.integers(len(words)))]
            return Lesson(_picked(frames, count, rng), noun, SILENCE, None, 0, _NOWHERE, _UNPOSED)
        shard = int(rng.integers(len(self.frames)))
        place = int(rng.integers(len(self.scenes[shard])))
        frames, scene = self.frames[shard][place], self.scenes[shard][place]
        cells, poses = self.occupancy[shard][place], self.poses[shard][place]
        # In the mirror the left one of a pair is the right one: words for pairs rest on their order.
        if len(scene.subjects) == 1 and rng.random() < 0.5:
            frames, scene = frames[:, :, ::-1], mirrored(scene)
            cells, poses = cells[..., ::-1], poses * _MIRROR
        which, noun = asked_subject(scene, rng)
        moving = count == CLIP_FRAMES
        return Lesson(_picked(frames, count, rng), noun, answer(scene, which, moving), scene, which, cells, poses)


def cells_of(masks: npt.NDArray[np.bool_]) -> Cells:
    """Mean of masks (N, 13, 64, 64) over pairs of frames and cells of 16×16 pixels, shape (N, 7, 4, 4)."""
    whole = np.concatenate([masks, np.repeat(masks[:, -1:], -masks.shape[1] % TEMPORAL, axis=1)], axis=1)
    cells = whole.reshape(len(masks), -1, TEMPORAL, 4, SIZE // 4, 4, SIZE // 4).mean((2, 4, 6), dtype=np.float32)
    return np.asarray(cells, np.float32)


def poses_of(scenes: Sequence[Scene]) -> Cells:
    """Where the subjects of clips are, shape (N, 13, 2, 6)."""
    return np.stack([subject_poses(scene) for scene in scenes])


def _picked(frames: Frames, count: int, rng: np.random.Generator) -> Frames:
    if count == len(frames):
        return frames
    return frames[np.sort(rng.choice(len(frames), count, replace=False))]
