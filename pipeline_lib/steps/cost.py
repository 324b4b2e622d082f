"""What a run will use: memory by phase, steps and seconds; no weight is read.

Activations and arithmetic are counted by a rehearsal without values (:mod:`pipeline_lib.steps.rehearsal`); what is
assumed besides are prompts of 32 tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from pipeline_lib.media.header import read_header
from pipeline_lib.media.limits import DEFAULT_LIMITS
from pipeline_lib.models.base import BaseModel, FamilySpec
from pipeline_lib.models.folder import PipelineFolder
from pipeline_lib.records import Caption, Record, StageSpec
from pipeline_lib.registry import MethodChoice, base_source
from pipeline_lib.run_config import RunConfig
from pipeline_lib.sections import TrainingSection
from pipeline_lib.steps.advice import Advice, Need, Scope, advice
from pipeline_lib.steps.caption import class_noun
from pipeline_lib.steps.generate import planned_prompts
from pipeline_lib.steps.memory import Load, Phase, adapter_bytes, lesson_of, phases
from pipeline_lib.steps.prepare import collect_inputs
from pipeline_lib.steps.rehearsal import PROMPTS_AT_ONCE, Rehearsal, Work
from pipeline_lib.steps.sampling import changed_sampling
from pipeline_lib.steps.speed import Rate
from pipeline_lib.steps.weightless_stage import TEXT_ROWS, sees_estimates, step_samples, text_rows
from pipeline_lib.training.encode import MAX_WINDOWS
from pipeline_lib.training.prior import FRAMES_PER_CLIP

_ONE_PASS = ("hunyuan",)  # the guidance scale is an input of the model, so a step is one pass
_PASSES_AT_ONCE = ("ltx", "cogvideox")  # stock pipelines that put both passes of a step into one batch


class Cost(Record):
    """What a run will use.

    `weights` are bytes by part of the base, each in its own dtype and storage, on whichever side; `adapter` the most
    bytes of all that learns, with gradients and moments; `latents` the most bytes that cached latents take, `text`
    those of encoded prompts. `phases` tell what is in memory when. `steps` are those of each stage; `forwards` counts
    passes of one sample through the denoiser, by step: a training pass has a backward pass besides. `work` is what one
    training step of each stage takes, all processes together, and one pass of sampling; `coding` what the autoencoder
    and the text encoders do in all, by step.
    """

    weights: dict[str, int]
    adapter: int
    latents: int
    text: int
    phases: tuple[Phase, ...]
    steps: dict[str, int]
    forwards: dict[str, int]
    work: dict[str, Work]
    coding: dict[str, Work]

    @property
    def training_steps(self) -> int:
        """Of all stages."""
        return sum(self.steps.values())

    @property
    def need(self) -> Need:
        """The most that any phase needs."""
        return need_of(self.phases)


def need_of(held: Sequence[Phase]) -> Need:
    """The most bytes of any phase, on either side."""
    return Need(device=max(phase.on_device for phase in held), host=max(phase.on_host for phase in held))


class Estimate:
    """A run's cost, and what it would be with other memory settings.

    Args:
        config: of the run.
        choice: its method.
        base: opened, nothing loaded.
        device: "cpu" or "cuda…".
        dtype: of denoiser and text encoders.

    Raises:
        InputError: the inputs, or the base's files, cannot be read.
    """

    def __init__(self, config: RunConfig, choice: MethodChoice, base: BaseModel, device: str, dtype: str) -> None:
        self._config, self._choice, self._spec = config, choice, base.spec
        self._folder = PipelineFolder(Path(base_source(config)).expanduser())
        self._stages = choice.method.plan(choice.settings, bool(collect_inputs(config).clips))
        on_cpu = device == "cpu"
        self._rehearsal = Rehearsal(self._folder.path, base.spec, getattr(torch, dtype), on_cpu=on_cpu)
        self._pieces = _pieces(config, choice, base)
        self._latents, self._text = (
            self._pieces.latents(base.spec),
            self._pieces.texts * _text_bytes(self._folder, base),
        )
        self._load = Load(
            stages=self._stages,
            denoisers=sum(part.startswith("transformer") for part in self._folder.parts),
            encoders=[part for part in self._folder.parts if part.startswith("text_encoder")],
            cached=self._latents + self._text,
            denoised=_passes(base.spec, changed_sampling(config, base.spec).guidance_scale)
            if base.spec.name in _PASSES_AT_ONCE
            else 1,
            frames=base.spec.frame_rules.num_frames if self._pieces.windows or self._pieces.prior else 1,
            on_cpu=on_cpu,
        )

    def cost(self) -> Cost:
        """Of the run as its config has it."""
        training, load, rehearsal = self._config.training, self._load, self._rehearsal
        denoiser = rehearsal.denoiser_bytes(training.storage)[0]
        weights = {part: denoiser for part in self._folder.parts if part.startswith("transformer")}
        weights |= {part: rehearsal.reading(part)[1] for part in load.encoders}
        weights["vae"] = rehearsal.decoding()[1]
        return Cost(
            weights=weights,
            adapter=max((self._adapter(stage) for stage in self._stages), default=0),
            latents=self._latents,
            text=self._text,
            phases=tuple(phases(rehearsal, load, training)),
            steps={f"train-{stage.name}": stage.steps for stage in self._stages},
            forwards=_forwards(self._config, self._choice, self._spec, self._stages),
            work={**{f"train-{stage.name}": self._step(stage) for stage in self._stages}, "pass": self._one_pass()},
            coding=self._coding(),
        )

    def need(self, training: TrainingSection) -> Need:
        """Of the run with other memory settings."""
        return need_of(phases(self._rehearsal, self._load, training))

    def advice(self, room: Need) -> list[Advice]:
        """What to switch on where there is too little room, or off where there is enough."""
        samples = [step_samples(stage) for stage in self._stages]
        alike = not any(sees_estimates(stage, self._spec) for stage in self._stages)
        divisible = not any(count % self._config.training.processes for count in samples)
        scope = Scope(
            blocks=sum(self._rehearsal.depth.values()),
            samples=max(samples, default=1),
            shardable=self._load.denoisers == 1 and alike and divisible,
        )
        return advice(self._config.training, room, scope, self.need)

    def _adapter(self, stage: StageSpec) -> int:
        _, learning, masks = self._rehearsal.factors(stage)
        gradients_without_masks = 4 * (learning - masks) * self._load.denoisers
        return adapter_bytes(self._rehearsal, self._load, stage)[1] + gradients_without_masks

    def _coding(self) -> dict[str, Work]:
        rehearsal, pieces, length = self._rehearsal, self._pieces, self._spec.frame_rules.num_frames
        frame, decoded = rehearsal.encoding(1), rehearsal.decoding()[0]
        window = rehearsal.encoding(length) if pieces.windows or pieces.prior else frame
        text = _sum(rehearsal.reading(part)[0].times(1 / PROMPTS_AT_ONCE) for part in self._load.encoders)
        prompts = _passes(self._spec, self._spec.guidance_scale)  # of one video, the negative one included
        again = [window, frame.times(FRAMES_PER_CLIP), text.times(pieces.prior_texts)]
        prior = _sum([decoded, text.times(prompts), *again]).times(pieces.prior)
        return {
            "encode": _sum([frame.times(pieces.frames), window.times(pieces.windows), text.times(pieces.prompts)]),
            **({"prior": prior} if pieces.prior else {}),
            "samples": _sum([decoded, text.times(prompts)]).times(_videos(self._config)),
        }

    def _step(self, stage: StageSpec) -> Work:
        """Of a stage whose steps see frames or clips, the mean in the long run; only its time is of interest."""
        share = float(stage.settings.get("frame_share", 0.0))
        if not share:
            return self._step_on(stage)
        frames = stage.model_copy(update={"data": "frames"})
        return _sum([self._step_on(stage).times(1.0 - share), self._step_on(frames).times(share)])

    def _step_on(self, stage: StageSpec) -> Work:
        lesson = lesson_of(stage, self._config.training)
        return self._rehearsal.training(lesson).times(step_samples(stage) / lesson.samples)

    def _one_pass(self) -> Work:
        once = self._rehearsal.denoising(self._load.denoised)
        return once.times(1 / self._load.denoised)


def seconds(cost: Cost, rate: Rate, processes: int) -> dict[str, float]:
    """How long the steps of a run take, about; loading, captions, masks and scores are not in it.

    Args:
        cost: of the run.
        rate: of its device.
        processes: that share a training step.

    Returns:
        Seconds by step, in the order of the run.
    """
    taken = {name: rate.seconds(work) for name, work in cost.coding.items()}
    for name, count in cost.forwards.items():
        one_step = rate.seconds(cost.work[name if name in cost.steps else "pass"])
        passing = cost.steps[name] * one_step / processes if name in cost.steps else count * one_step
        taken[name] = taken.get(name, 0.0) + passing
    return {name: taken[name] for name in dict.fromkeys(["encode", *cost.forwards])}


class _Pieces(NamedTuple):
    """What is encoded: frames by themselves, windows of clips, prompts; of each clip of the prior so many prompts."""

    frames: int
    windows: int
    prompts: int
    prior: int
    prior_texts: int

    @property
    def texts(self) -> int:
        return self.prompts + self.prior * self.prior_texts

    def latents(self, spec: FamilySpec) -> int:
        """Bytes, float32."""
        rules = spec.frame_rules
        area = rules.height * rules.width // spec.spatial_factor**2
        clip = 1 + (rules.num_frames - 1) // spec.temporal_factor
        kept = self.frames + self.windows * clip + self.prior * (clip + FRAMES_PER_CLIP)
        return kept * area * spec.latent_channels * 4


def _pieces(config: RunConfig, choice: MethodChoice, base: BaseModel) -> _Pieces:
    """At most: a clip is taken whole, as long as its header says; two prompts of each source, in all variants."""
    rules, media = base.spec.frame_rules, collect_inputs(config)
    lengths = [math.ceil(read_header(path, DEFAULT_LIMITS).seconds * rules.frames_per_second) for path in media.clips]
    frames = sum(lengths) + len(media.images)
    asked, prior = (
        choice.method.encoding(choice.settings, base, class_noun(config)),
        choice.method.prior(choice.settings),
    )
    return _Pieces(
        frames=min(asked.num_frames or frames, frames) * (1 + asked.crops.each),
        windows=sum(min(MAX_WINDOWS, max(1, length - rules.num_frames + 1)) for length in lengths),
        prompts=2 * (len(lengths) + bool(media.images)) * (asked.drop.variants if asked.drop.probability else 1),
        prior=prior.clips if prior else 0,
        prior_texts=prior.token_variants if prior and prior.token_drop else 1,
    )


def _text_bytes(folder: PipelineFolder, base: BaseModel) -> int:
    """Bytes of one encoded prompt, float32."""
    config_of = folder.config("transformer")
    width = next(
        (config_of[key] for key in ("text_dim", "caption_channels", "text_embed_dim") if key in config_of), 4096
    )
    rows = text_rows(base.spec.name, padded=False) if base.spec.name in TEXT_ROWS else 512
    return rows * int(width) * 4


def _sum(works: Iterable[Work]) -> Work:
    """One after the other; only their time is of interest."""
    parts = list(works)
    return Work(flops=sum(work.flops for work in parts), moved=sum(work.moved for work in parts))


def _forwards(config: RunConfig, choice: MethodChoice, spec: FamilySpec, stages: Sequence[StageSpec]) -> dict[str, int]:
    prior = choice.method.prior(choice.settings)
    counts = {"prior": prior.clips * spec.sampling_steps * _passes(spec, spec.guidance_scale)} if prior else {}
    for stage in stages:
        counts[f"train-{stage.name}"] = stage.steps * step_samples(stage)
    sampling = changed_sampling(config, spec)
    passes = sampling.num_inference_steps * _passes(spec, sampling.guidance_scale)
    return {**counts, "samples": _videos(config) * passes}


def _videos(config: RunConfig) -> int:
    """Samples of the base and of what was learned."""
    caption = config.captions[0] if config.captions else Caption(class_noun=class_noun(config))
    prompts, _ = planned_prompts(config, caption)
    return 2 * len(prompts) * len(config.samples.seeds)


def _passes(spec: FamilySpec, guidance: float) -> int:
    return 2 if guidance > 1 and spec.name not in _ONE_PASS else 1
