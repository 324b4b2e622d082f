"""The world's truth as arrays: what the judge is trained on and measured against."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline_lib.world import vocabulary
from pipeline_lib.world.motion import channel_values
from pipeline_lib.world.render import subject_track
from pipeline_lib.world.scene import Camera, Channel, Motion, Scene, Subject

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

SUBJECT_WORDS: dict[str, tuple[str, ...]] = {
    "shape": (*vocabulary.SHAPES, "creature"),
    "colour": vocabulary.COLOURS,
    "second_colour": vocabulary.COLOURS,
    "texture": vocabulary.TEXTURES,
    "accessory": vocabulary.ACCESSORIES,
    "eyes": ("1", "2", "3", "4"),
    "antennae": ("0", "1", "2", "3"),
}
"""Attributes of one subject and their words, in the order of the judge's outputs."""
_HIDDEN_BY = {"eyes": "glasses", "antennae": "hat"}
FRAME_WORDS: dict[str, tuple[str, ...]] = {"background": vocabulary.BACKGROUNDS, "light": vocabulary.LIGHTS}
"""Attributes of a whole frame."""
MOTION_WORDS: tuple[str, ...] = (*vocabulary.MOTIONS, "free")
"""Motions that the judge tells apart: the ten named ones and any other."""
MOST_SUBJECTS = 2
_COLUMNS = ("frames", "poses", "labels", "scene_labels", "masks", "mask_known")
POSE_SIZE = 5
"""A pose is (x, y, log scale, angle, log stretch): pixels, pixels, log of pixels, radians, log of a ratio."""


def poses(scene: Scene) -> Array:
    """Where each subject is in each frame.

    Args:
        scene: the scene.

    Returns:
        Poses, shape (T, 2, 5), NaN where there is no such subject.
    """
    table = np.full((scene.num_frames, MOST_SUBJECTS, POSE_SIZE), np.nan, dtype=np.float32)
    for position, subject in enumerate(scene.subjects):
        track = subject_track(scene, subject)
        values = (track.x, track.y, np.log(track.scale), track.angle, np.log(track.stretch))
        table[:, position] = np.stack(values, axis=-1)
    return table


def subject_labels(scene: Scene) -> Labels:
    """Index of each subject's words.

    Args:
        scene: the scene.

    Returns:
        Indices, shape (2, 7), in the order of ``SUBJECT_WORDS``; -1 where there is no such subject,
        and for what an accessory hides.
    """
    table = np.full((MOST_SUBJECTS, len(SUBJECT_WORDS)), -1, dtype=np.int64)
    for position, subject in enumerate(scene.subjects):
        for column, (name, words) in enumerate(SUBJECT_WORDS.items()):
            if _HIDDEN_BY.get(name) != subject.accessory:
                table[position, column] = words.index(str(getattr(subject, name)))
    return table


def frame_labels(scene: Scene) -> Labels:
    """Index of the background's and the light's word, shape (2,)."""
    return np.array(
        [vocabulary.BACKGROUNDS.index(scene.backdrop.name), vocabulary.LIGHTS.index(scene.light)], dtype=np.int64
    )


def frozen(scene: Scene, frame: int) -> Scene:
    """One moment of a scene as a scene of its own, which renders thirteen times faster.

    Args:
        scene: the scene.
        frame: which frame.

    Returns:
        A scene of one frame that shows the subjects as they are in that frame, under a static camera.
    """
    zoom = scene.camera.amount if scene.camera.name == "zoom in" else 0.0
    near = float(np.sqrt(1.0 + zoom * frame / 12.0))

    def held(subject: Subject) -> Subject:
        motion = subject.motion
        values = {
            name: float(channel_values(getattr(motion, name), frame + 1)[-1])
            for name in ("horizontal", "vertical", "angle", "size", "stretch")
        }
        x = (subject.position[0] + values["horizontal"]) * near
        y = (subject.position[1] + values["vertical"]) * near
        size = subject.size * near * float(np.clip(1.0 + values["size"], 0.4, 1.8))
        # At time 0 a drift has run minus half of its way.
        turned = Motion(
            motion.name, angle=Channel(drift=-2.0 * values["angle"]), stretch=Channel(drift=-2.0 * values["stretch"])
        )
        return replace(subject, position=(x, y), size=size, motion=turned)

    subjects = tuple(held(subject) for subject in scene.subjects)
    return replace(scene, subjects=subjects, num_frames=1, camera=Camera("static", 0.0))


@dataclass(frozen=True)
class FrameTable:
    """Single frames with their truth.

    Attributes:
        frames: RGB, shape (N, 64, 64, 3), uint8.
        poses: shape (N, 2, 5).
        labels: shape (N, 2, 7).
        scene_labels: shape (N, 2), background and light; -1 on pictures that are not of the world.
        masks: shape (N, 2, 64, 64), bool, one per subject.
        mask_known: shape (N,), whether ``masks`` tells the subjects apart.
    """

    frames: npt.NDArray[np.uint8]
    poses: Array
    labels: Labels
    scene_labels: Labels
    masks: npt.NDArray[np.bool_]
    mask_known: npt.NDArray[np.bool_]

    def take(self, rows: Labels) -> FrameTable:
        """The given rows, in their order."""
        return FrameTable(*(getattr(self, name)[rows] for name in _COLUMNS))

    @staticmethod
    def join(tables: list[FrameTable]) -> FrameTable:
        """One table after the other."""
        return FrameTable(*(np.concatenate([getattr(table, name) for table in tables]) for name in _COLUMNS))
