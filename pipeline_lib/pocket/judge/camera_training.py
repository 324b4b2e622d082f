"""Training of the camera network on registration errors of cached clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline_lib.pocket import clip_cache
from pipeline_lib.pocket.judge.augmentation import damaged
from pipeline_lib.pocket.judge.camera_reading import CameraNetwork, registration_features
from pipeline_lib.pocket.judge.scene_training import to_pictures
from pipeline_lib.pocket.judge.training import Losses
from pipeline_lib.world.scene import Scene
from pipeline_lib.world.vocabulary import BACKGROUNDS, CAMERAS

_SURE = 0.93  # the scene network is never quite sure of a background


@torch.no_grad()
def clip_features(
    frames: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    scene: Scene,
    generator: torch.Generator | None,
) -> Tensor:
    """Features of one clip whose truth is known.

    Args:
        frames: shape (T, 64, 64, 3), uint8.
        mask: union of the subjects' masks, shape (T, 64, 64).
        scene: the scene.
        generator: source of damage; None for none.

    Returns:
        Shape (``FEATURE_SIZE``,).
    """
    pictures = to_pictures(frames)
    if generator is not None:
        pictures = damaged(pictures, generator)
    place = torch.tensor(BACKGROUNDS.index(scene.backdrop.name))
    rest = (1.0 - _SURE) / len(BACKGROUNDS)
    background = _SURE * functional.one_hot(place, len(BACKGROUNDS)).float() + rest
    return registration_features(pictures, torch.from_numpy(mask).float(), background)


def camera_examples(clips: Path, decoded: Path, seed: int, shards: list[int], count: int) -> tuple[Tensor, Tensor]:
    """Features and answers of cached clips, decoded where there are any, every other one damaged.

    Args:
        clips: the clip cache.
        decoded: folder of decoded clips.
        seed: seed of the damage.
        shards: which shards.
        count: clips of each shard.

    Returns:
        Shapes (N, ``FEATURE_SIZE``) and (N,).
    """
    generator = torch.Generator().manual_seed(seed)
    features, answers = [], []
    for number in shards:
        shard = clip_cache.read_shard(clips, number)
        path = decoded / f"decoded_{number:05d}.npy"
        sources = [shard.frames[:count]] + ([np.load(path)] if path.exists() else [])
        for frames in sources:
            for index, clip in enumerate(frames):
                damage = generator if index % 2 else None
                features.append(clip_features(clip, shard.masks[index], shard.scenes[index], damage))
                answers.append(CAMERAS.index(shard.scenes[index].camera.name))
    return torch.stack(features), torch.tensor(answers)


class CameraTrainer:
    """Losses of a step from its counter.

    Args:
        network: what is trained.
        features: shape (N, ``FEATURE_SIZE``).
        answers: indices of the camera's words, shape (N,).
        seed: seed of the draws.
        batch: clips a step.
    """

    def __init__(self, network: CameraNetwork, features: Tensor, answers: Tensor, seed: int, batch: int = 256) -> None:
        self.network, self.features, self.answers = network, features, answers
        self.seed, self.batch = seed, batch

    def losses(self, step: int) -> Losses:
        """The losses of one step."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        rows = torch.randint(len(self.features), (self.batch,), generator=generator)
        features = self.features[rows]
        noisy = features + 0.05 * torch.randn(features.shape, generator=generator)
        return {"camera": functional.cross_entropy(self.network(noisy), self.answers[rows])}
