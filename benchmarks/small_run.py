"""A run that is over soon, but not at once: what benchmarks of the machinery around runs start."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline_lib.media.write import write_video
from pipeline_lib.models.tiny import tiny_wan
from pipeline_lib.run_config import RunConfig, with_settings

STEPS = 60
SETTINGS = (
    "method.preset=portable",
    f"method.settings.identity_steps={STEPS}",
    f"method.settings.motion_steps={STEPS}",
    "method.settings.prior_clips=2",
    "method.settings.token_variants=3",
    "method.settings.batch=2",
    "method.settings.rank=2",
    'samples.prompts=["{subject} on the beach"]',
    "training.checkpoint_every=5",
)


def small_run(folder: Path) -> RunConfig:
    """A personalisation of a tiny random base that is not over at once: a red square slides to the right."""
    frames = np.full((8, 48, 48, 3), 40, np.uint8)
    for index in range(8):
        frames[index, 10:30, 4 + 2 * index : 20 + 2 * index] = (220, 40, 40)
    clip = write_video(frames, folder / "square.mp4", 8.0)
    sections = {
        "concept": {"inputs": [str(clip)], "subject": "dog"},
        "base": {"source": str(tiny_wan(folder / "base"))},
    }
    return with_settings(RunConfig.model_validate(sections), SETTINGS)
