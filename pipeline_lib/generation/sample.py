"""Samples through the stock pipeline: one call, one video, one counter-based draw of noise."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline_lib.errors import InputError, NonFiniteError, ResourceError
from pipeline_lib.models.base import BaseModel, FamilySpec
from pipeline_lib.models.frame_limits import check_video
from pipeline_lib.seeding import generator, seeded_globally

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How to sample; :meth:`of` takes a base's own.

    Attributes:
        num_inference_steps: denoising steps.
        guidance_scale: of classifier-free guidance; 1 or less is none.
        num_frames: of the video.
        height: in pixels.
        width: in pixels.
        frames_per_second: of the video when written.
        negative_prompt: what guidance points away from.
    """

    num_inference_steps: int
    guidance_scale: float
    num_frames: int
    height: int
    width: int
    frames_per_second: float
    negative_prompt: str = ""

    @staticmethod
    def of(spec: FamilySpec) -> SamplingSettings:
        """A base's defaults."""
        rules = spec.frame_rules
        return SamplingSettings(
            num_inference_steps=spec.sampling_steps,
            guidance_scale=spec.guidance_scale,
            num_frames=rules.num_frames,
            height=rules.height,
            width=rules.width,
            frames_per_second=rules.frames_per_second,
            negative_prompt=spec.negative_prompt,
        )


def generate(
    base: BaseModel,
    prompt_text: str,
    seed: int,
    settings: SamplingSettings,
    *,
    pipeline: DiffusionPipeline | None = None,
) -> NDArray[np.uint8]:
    """Samples one video.

    Args:
        base: its stock pipeline is called, with whatever adapter is attached.
        prompt_text: filled in, no placeholders.
        seed: the same seed gives the same noise for every prompt and every model.
        settings: how to sample.
        pipeline: the base's stock pipeline, when the caller keeps one (say, with a concept loaded).

    Returns:
        Frames (num_frames, height, width, 3), uint8 RGB.

    Raises:
        InputError: a size, frame count or frame rate that the base cannot make; the nearest that it can is named.
        NonFiniteError: the model answered with values that are not finite.
        ResourceError: the device has not enough memory.
    """
    _check(base, settings)
    stock: Any = pipeline or base.pipeline()
    stock.set_progress_bar_config(disable=True)
    try:
        # Some autoencoders (LTX-Video 0.9.1) draw noise of their own while they decode.
        with _without_rounding_warning(stock), seeded_globally(base.device, seed, "sample"):
            video = stock(
                prompt=prompt_text,
                negative_prompt=settings.negative_prompt,
                height=settings.height,
                width=settings.width,
                num_frames=stock_num_frames(stock, settings.num_frames),
                num_inference_steps=settings.num_inference_steps,
                guidance_scale=settings.guidance_scale,
                **low_noise_guidance(base.spec, settings),
                generator=generator(seed, "sample"),
                output_type="np",
                **frame_rate(type(stock), settings),
            ).frames[0]
    except torch.OutOfMemoryError as error:
        raise ResourceError(
            f"sampling {settings.num_frames} frames of {settings.width}×{settings.height} does not fit on "
            f"{base.device}; ask for fewer frames or a smaller size ({error})"
        ) from error
    if not np.isfinite(video).all():
        raise NonFiniteError(f"sampling {prompt_text!r} with seed {seed} gave values that are not finite")
    assert len(video) == settings.num_frames, "the stock pipeline made another number of frames"
    frames: NDArray[np.uint8] = np.rint(video * 255).astype(np.uint8)
    return frames


def low_noise_guidance(spec: FamilySpec, settings: SamplingSettings) -> dict[str, float]:
    """What a stock pipeline must be told of a low-noise expert's guidance, as arguments of its call.

    Args:
        spec: of the base.
        settings: a guidance scale that is not the base's own is for both experts, as in the stock call.

    Returns:
        `guidance_scale_2`, or nothing.
    """
    if spec.low_noise_guidance_scale is None or settings.guidance_scale != spec.guidance_scale:
        return {}
    return {"guidance_scale_2": spec.low_noise_guidance_scale}


def stock_num_frames(pipeline: Any, num_frames: int) -> int:
    """What to ask this stock pipeline for, to get `num_frames`; see :func:`asked_num_frames`."""
    return asked_num_frames(num_frames, getattr(pipeline, "vae_scale_factor_temporal", 0))


def asked_num_frames(num_frames: int, temporal_factor: int) -> int:
    """What to ask a stock pipeline for, to get `num_frames`.

    Stock pipelines round to 1 + k·factor; where the autoencoder does not compress time (factor 1), their
    test `n % 1 != 1` always holds, and they make one frame more than asked for.
    """
    return num_frames - 1 if temporal_factor == 1 else num_frames


def frame_rate(pipeline_class: Any, settings: SamplingSettings) -> dict[str, float]:
    """What pipelines are told whose model knows the frame rate (LTX-Video): `frame_rate`, or nothing."""
    told = "frame_rate" in inspect.signature(pipeline_class.__call__).parameters
    return {"frame_rate": settings.frames_per_second} if told else {}


@contextmanager
def _without_rounding_warning(pipeline: Any) -> Iterator[None]:
    """The warning that comes with that rounding would be false: the frame count has been checked."""

    def keep(record: logging.LogRecord) -> bool:
        return "`num_frames - 1` has to be divisible" not in record.getMessage()

    logger = logging.getLogger(type(pipeline).__module__)
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _check(base: BaseModel, settings: SamplingSettings) -> None:
    rules = base.spec.frame_rules
    check_video(f"{base.source} cannot make this video", settings.num_frames, settings.width, settings.height, rules)
    if not 0 < settings.frames_per_second < math.inf:
        raise InputError(
            "a video needs a frame rate",
            got=f"{settings.frames_per_second:g} frames a second",
            expected=f"more than 0, e.g. the {rules.frames_per_second:g} that {base.source} was trained at",
        )
    if settings.num_inference_steps < 1:
        raise InputError("sampling needs at least one step", got=str(settings.num_inference_steps))
