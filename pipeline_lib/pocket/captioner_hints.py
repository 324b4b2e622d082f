"""Hints for the captioner's eyes: its vision tokens themselves must tell what is where, while it is trained.

The words of an answer teach the vision tower only through the decoder, which first has to find out where to look.
The world knows what each token shows, so linear heads on the tokens are asked directly; they are not published.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.pocket.base_places import POSE_NUMBERS
from pipeline_lib.pocket.captioner_data import Lesson
from pipeline_lib.pocket.captioner_model import CLIP_GROUPS, TEMPORAL
from pipeline_lib.world import vocabulary
from pipeline_lib.world.scene import Scene, Subject

_IGNORED = -100
_LEAST = 0.03  # share of a token's pixels and frames that must show the subject
_SHAPES = (*vocabulary.SHAPES, "creature")

SUBJECT_HEADS: dict[str, tuple[int, Callable[[Subject], int]]] = {
    "shape": (len(_SHAPES), lambda one: _SHAPES.index(one.shape)),
    "colour": (len(vocabulary.COLOURS), lambda one: vocabulary.COLOURS.index(one.colour)),
    "second_colour": (len(vocabulary.COLOURS), lambda one: vocabulary.COLOURS.index(one.second_colour)),
    "texture": (len(vocabulary.TEXTURES), lambda one: vocabulary.TEXTURES.index(one.texture)),
    "accessory": (len(vocabulary.ACCESSORIES), lambda one: vocabulary.ACCESSORIES.index(one.accessory)),
    "eyes": (4, lambda one: _IGNORED if one.accessory == "glasses" else one.eyes - 1),
    "antennae": (3, lambda one: min(one.antennae, 2)),
}
"""Asked of the tokens that show a subject: how many answers, and which is right."""
SCENE_HEADS: dict[str, tuple[int, Callable[[Scene], int]]] = {
    "camera": (len(vocabulary.CAMERAS), lambda scene: vocabulary.CAMERAS.index(scene.camera.name)),
    "background": (len(vocabulary.BACKGROUNDS), lambda scene: vocabulary.BACKGROUNDS.index(scene.backdrop.name)),
    "light": (len(vocabulary.LIGHTS), lambda scene: vocabulary.LIGHTS.index(scene.light)),
}
"""Asked of the mean of all tokens."""


class HintHeads(nn.Module):
    """One linear head for each question.

    Args:
        width: of a vision token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.subject = nn.ModuleDict({name: nn.Linear(width, count) for name, (count, _) in SUBJECT_HEADS.items()})
        self.scene = nn.ModuleDict({name: nn.Linear(width, count) for name, (count, _) in SCENE_HEADS.items()})
        self.place = nn.Linear(width, 2 * POSE_NUMBERS)

    def loss(self, tokens: Tensor, lessons: list[Lesson]) -> Tensor:
        """Mean of all questions: cross-entropy of words, squared error of poses.

        Args:
            tokens: the vision tower's tokens of clips, shape (B, 112, width).
            lessons: the clips; those not of the pocket world are left out.

        Returns:
            One number.
        """
        known = [index for index, lesson in enumerate(lessons) if lesson.scene is not None]
        scenes = [lesson.scene for lesson in lessons if lesson.scene is not None]
        seen = tokens[known].float()
        weight = torch.from_numpy(np.stack([lessons[index].occupancy for index in known])).flatten(1)
        weight = weight * (weight > _LEAST)
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-6)
        losses = []
        for name, (_, answer) in SUBJECT_HEADS.items():
            target = torch.stack([_by_token(scene, answer) for scene in scenes])
            each = functional.cross_entropy(
                self.subject[name](seen).flatten(0, 1), target.flatten(), reduction="none", ignore_index=_IGNORED
            )
            losses.append((each * weight.flatten()).sum() / len(scenes))
        for name, (_, tell) in SCENE_HEADS.items():
            right = torch.tensor([tell(scene) for scene in scenes])
            losses.append(functional.cross_entropy(self.scene[name](seen.mean(1)), right))
        poses = torch.stack([_poses_by_token(lessons[index]) for index in known])
        errors = (self.place(seen) - poses).square().mean(-1)
        losses.append((errors * weight).sum() / len(scenes))
        return torch.stack(losses).mean()


def _by_token(scene: Scene, answer: Callable[[Subject], int]) -> Tensor:
    """The right answer for each token of a clip, 4 × 4 a pair of frames; of a pair, the left one's on the left."""
    sides = [answer(scene.subjects[0]), answer(scene.subjects[-1])]
    return torch.tensor([sides[column // 2] for _ in range(4) for column in range(4)]).repeat(CLIP_GROUPS)


def _poses_by_token(lesson: Lesson) -> Tensor:
    """For each token the pose of the subject on its side: the mean over its frames, and how it changes between them.

    Motions are told from poses by the decoder, which alone sees all frames.
    """
    poses = np.concatenate([lesson.poses, np.repeat(lesson.poses[-1:], -len(lesson.poses) % TEMPORAL, axis=0)])
    pairs = poses.reshape(-1, TEMPORAL, 2, POSE_NUMBERS)
    told = np.concatenate([pairs.mean(1), 2.0 * (pairs[:, -1] - pairs[:, 0])], axis=-1)
    told = np.where(np.isnan(told), told[:, :1], told)  # a single subject is on both sides
    return torch.from_numpy(told[:, [column // 2 for _ in range(4) for column in range(4)]]).flatten(0, 1)
