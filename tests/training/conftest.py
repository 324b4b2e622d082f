"""One concept, encoded once on the tiny base, and a prior set of arbitrary clips."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline_lib.media.clip import Clip
from pipeline_lib.models.load import load_base
from pipeline_lib.records import Caption, ClipRecord
from pipeline_lib.training.encode import EncodingSettings, encode_training_data
from pipeline_lib.training.prior import encode_prior, prior_prompts
from pipeline_lib.training.text import TokenDropSettings

DROP = TokenDropSettings(probability=0.3, variants=5)
CAPTION = Caption(class_noun="dog", static="red", motion="running", background="on the beach")


def moving_square(num_frames: int, seed: int = 0) -> np.ndarray:
    colour = np.random.default_rng(seed).integers(0, 255, 3)
    frames = np.full((num_frames, 32, 32, 3), 90, np.uint8)
    for index in range(num_frames):
        frames[index, 8:20, 2 * index : 2 * index + 10] = colour
    return frames


def clip_of(frames: np.ndarray, kind: str = "video") -> Clip:
    count, height, width, _ = frames.shape
    record = ClipRecord(
        name="square", kind=kind, sources=(), height=height, width=width, num_frames=count, frames_per_second=8
    )
    return Clip(frames, record)


@pytest.fixture
def base(tiny_folder):
    return load_base(str(tiny_folder))


@pytest.fixture(scope="session")
def data(tiny_folder):
    base = load_base(str(tiny_folder))
    learned = {"subject": base.sentinel(0), "motion": base.sentinel(1)}
    settings = EncodingSettings(
        num_frames=4, drop=DROP, subject=f"{base.sentinel(0)} dog", motion=base.sentinel(1), learned=learned
    )
    return encode_training_data(base, [clip_of(moving_square(7))], [CAPTION], settings)


@pytest.fixture(scope="session")
def prior(tiny_folder):
    base = load_base(str(tiny_folder))
    prompts = prior_prompts("dog", 3, seed=0)
    return encode_prior(base, [moving_square(5, seed=i + 1) for i in range(3)], prompts, DROP, seed=0)
