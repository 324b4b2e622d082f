"""Sampling many videos one by one, so that a kill loses at most the one being made."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.errors import StopRequested
from pipeline_lib.generation.sample import SamplingSettings, generate
from pipeline_lib.models.base import FamilySpec
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.step import StepContext
from pipeline_lib.storage import write_atomic

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Order(NamedTuple):
    """One video to make: the prompt as the model reads it, its seed, its negative prompt ("" is the default)."""

    prompt: str
    seed: int
    negative: str = ""


def user_sampling(context: StepContext) -> SamplingSettings:
    """The base's own way to sample with the config's changes."""
    return changed_sampling(context.config, context.base.spec)


def changed_sampling(config: RunConfig, spec: FamilySpec) -> SamplingSettings:
    """The same, of a config and a family's data alone."""
    asked, settings = config.samples, SamplingSettings.of(spec)
    return dataclasses.replace(
        settings,
        num_inference_steps=asked.num_inference_steps or settings.num_inference_steps,
        guidance_scale=asked.guidance_scale or settings.guidance_scale,
        negative_prompt=asked.negative_prompt or settings.negative_prompt,
    )


def unseeded_facts(context: StepContext) -> dict[str, str]:
    """The base's part of a key of samples: they have seeds of their own, so the run's does not count."""
    return {name: value for name, value in context.base_facts().items() if name != "seed"}


def sample_all(
    context: StepContext,
    step: str,
    orders: Sequence[Order],
    settings: SamplingSettings,
    scratch: Path,
    *,
    pipeline: DiffusionPipeline | None = None,
) -> list[NDArray[np.uint8]]:
    """Makes videos with whatever is attached to the base; finished ones are kept in `scratch`.

    Args:
        context: base, progress, stop.
        step: name for the progress.
        orders: what to make.
        settings: how.
        scratch: folder of this key that survives kills.
        pipeline: the base's stock pipeline, where a concept was loaded onto one.

    Returns:
        One (t, h, w, 3) uint8 array for each order.

    Raises:
        StopRequested: a stop was asked for.
    """
    videos = []
    for index, order in enumerate(orders):
        path = scratch / f"{index:04d}.npy"
        if not path.is_file():
            if context.stop():
                raise StopRequested(f"stopped after {index} of {len(orders)} videos; run again to go on from there")
            chosen = dataclasses.replace(settings, negative_prompt=order.negative or settings.negative_prompt)
            content = io.BytesIO()
            frames = generate(context.base, order.prompt, order.seed, chosen, pipeline=pipeline)
            np.save(content, frames, allow_pickle=False)
            write_atomic(path, content.getvalue())
        videos.append(np.load(path, allow_pickle=False))
        context.progress(step, index + 1, len(orders))
    return videos
