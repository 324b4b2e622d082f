"""A whole run at tiny size: what tests of steps, flows and the command line share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline_lib.media.write import write_video
from pipeline_lib.models.folder import BaseCard, PipelineFolder
from pipeline_lib.models.tiny import tiny_wan
from pipeline_lib.run_config import RunConfig, with_settings

IDENTITY_STEPS, MOTION_STEPS, CHECKPOINT_EVERY = 4, 4, 2

SETTINGS = (
    "method.preset=portable",
    "method.settings.optimizer.learning_rate=2e-3",
    "method.settings.optimizer.max_gradient_norm=1.0",
    f"method.settings.identity_steps={IDENTITY_STEPS}",
    f"method.settings.motion_steps={MOTION_STEPS}",
    "method.settings.prior_clips=2",
    "method.settings.token_variants=3",
    "method.settings.batch=2",
    "method.settings.rank=2",
    'samples.prompts=["{subject} on the beach"]',
    f"training.checkpoint_every={CHECKPOINT_EVERY}",
)

STEPS = (
    "prepare", "caption", "generate-base", "encode", "prior", "train-identity", "train-motion",
    "generate-personalised", "evaluate", "concept", "report",
)  # fmt: skip


def square(num_frames: int = 8, size: int = 48, start: int = 4) -> NDArray[np.uint8]:
    """A red square that slides to the right."""
    frames = np.full((num_frames, size, size, 3), 40, np.uint8)
    for index in range(num_frames):
        left = start + 2 * index
        frames[index, 10:30, left : left + 16] = (220, 40, 40)
    return frames


def small_clip(path: Path, **square_options: int) -> Path:
    """The square as an mp4."""
    return write_video(square(**square_options), path, 8.0)


def small_images(folder: Path, count: int = 3) -> Path:
    """The square as pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate(square(count)):
        Image.fromarray(frame).save(folder / f"{index}.png")
    return folder


def tiny_config(base: Path, inputs: Sequence[Path], *settings: str) -> RunConfig:
    """A run that takes seconds."""
    config = RunConfig.model_validate(
        {
            "concept": {"inputs": [str(path) for path in inputs], "subject": "dog"},
            "base": {"source": str(base)},
        }
    )
    return with_settings(config, [*SETTINGS, *settings])


def options(base: Path) -> list[str]:
    """The same as command-line options."""
    return ["--subject", "dog", "--base", str(base), *(part for text in SETTINGS for part in ("--set", text))]


def tiny_world_base(folder: Path) -> Path:
    """The tiny base, at the size of the pocket world's clips: what a judge of that world can read."""
    card = PipelineFolder(tiny_wan(folder)).card()
    assert isinstance(card, BaseCard)
    card.model_copy(update={"height": 64, "width": 64, "num_frames": 13, "sampling_steps": 2}).save(folder)
    return folder
