"""What a run will use, counted from headers and settings: no weight is read, nothing is timed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from pipeline_lib.media.header import read_header
from pipeline_lib.media.limits import DEFAULT_LIMITS
from pipeline_lib.models.base import BaseModel, FamilySpec
from pipeline_lib.models.folder import PipelineFolder
from pipeline_lib.records import Caption, Record, StageSpec
from pipeline_lib.registry import MethodChoice, base_source
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.caption import class_noun
from pipeline_lib.steps.generate import planned_prompts
from pipeline_lib.steps.prepare import collect_inputs
from pipeline_lib.steps.sampling import changed_sampling
from pipeline_lib.training.encode import MAX_WINDOWS
from pipeline_lib.training.prior import FRAMES_PER_CLIP

BYTES = {"float32": 4, "bfloat16": 2}
TRAINED_BYTES = 16  # a float32 factor, its gradient and AdamW's two moments
IN_MEMORY = ("transformer", "text_encoder", "vae")


class Cost(Record):
    """What a run will use.

    `weights` are bytes in memory by part of the base, at the run's dtype; `adapter` the bytes of all that
    learns, with gradients and moments; `latents` the most bytes that cached latents take. `training_steps` are
    those of all stages; `forwards` counts passes of one sample through the denoiser, by step: a training pass
    has a backward pass besides.
    Activations are not counted: they depend on kernels and micro-batch.
    """

    weights: dict[str, int]
    adapter: int
    latents: int
    training_steps: int
    forwards: dict[str, int]


def run_cost(config: RunConfig, choice: MethodChoice, base: BaseModel, dtype: str) -> Cost:
    """Counts what a run will use.

    Args:
        config: of the run.
        choice: its method.
        base: opened, nothing loaded.
        dtype: of transformer and text encoder; the autoencoder stays in float32.

    Returns:
        The counts.

    Raises:
        InputError: the inputs, or the base's files, cannot be read.
    """
    folder = PipelineFolder(Path(base_source(config)).expanduser())
    stages = choice.method.plan(choice.settings, bool(collect_inputs(config).clips))
    parts = [part for part in folder.parts if part.startswith(IN_MEMORY)]
    sizes = {part: sum(math.prod(shape) for shape in folder.shapes(part).values()) for part in parts}
    return Cost(
        weights={part: size * BYTES["float32" if part == "vae" else dtype] for part, size in sizes.items()},
        adapter=_factors(folder, base.spec.lora_targets, stages) * TRAINED_BYTES,
        latents=_latents(config, choice, base),
        training_steps=sum(stage.steps for stage in stages),
        forwards=_forwards(config, choice, base.spec, stages),
    )


def _factors(folder: PipelineFolder, targets: Sequence[str], stages: Sequence[StageSpec]) -> int:
    """Numbers in the factors of the largest stage: rank · (in + out) of every adapted layer."""
    endings = tuple(f".{target}.weight" for target in targets)
    denoisers = [part for part in folder.parts if part.startswith("transformer")]
    weights = [item for part in denoisers for item in folder.shapes(part).items()]
    sides = sum(sum(shape) for name, shape in weights if f".{name}".endswith(endings))
    return sides * max((int(stage.settings.get("rank", 0)) for stage in stages), default=0)


def _latents(config: RunConfig, choice: MethodChoice, base: BaseModel) -> int:
    spec, rules = base.spec, base.spec.frame_rules
    area = rules.height * rules.width // spec.spatial_factor**2
    clip = 1 + (rules.num_frames - 1) // spec.temporal_factor
    media = collect_inputs(config)
    lengths = [read_header(path, DEFAULT_LIMITS).seconds * rules.frames_per_second for path in media.clips]
    wanted = choice.method.encoding(choice.settings, base, class_noun(config)).num_frames
    frames = wanted or math.ceil(sum(lengths)) + len(media.images)
    prior = choice.method.prior(choice.settings)
    kept = frames + clip * MAX_WINDOWS * len(media.clips) + (prior.clips * (clip + FRAMES_PER_CLIP) if prior else 0)
    return kept * area * spec.latent_channels * 4


def _forwards(config: RunConfig, choice: MethodChoice, spec: FamilySpec, stages: Sequence[StageSpec]) -> dict[str, int]:
    prior = choice.method.prior(choice.settings)
    counts = {"prior": prior.clips * _video(spec.sampling_steps, spec.guidance_scale)} if prior else {}
    for stage in stages:
        origins = 2 if stage.settings.get("prior_weight") else 1
        counts[f"train-{stage.name}"] = stage.steps * int(stage.settings.get("batch", 1)) * origins
    sampling = changed_sampling(config, spec)
    prompts, _ = planned_prompts(
        config, config.captions[0] if config.captions else Caption(class_noun=class_noun(config))
    )
    videos = 2 * len(prompts) * len(config.samples.seeds)
    return {**counts, "samples": videos * _video(sampling.num_inference_steps, sampling.guidance_scale)}


def _video(steps: int, guidance: float) -> int:
    return steps * (2 if guidance > 1 else 1)
