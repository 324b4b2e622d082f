"""Train: one stage of a method, from its last checkpoint where there is one."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from pipeline_lib.errors import ConfigError, InputError
from pipeline_lib.generation.sample import generate
from pipeline_lib.media.write import write_video
from pipeline_lib.methods.method import StageInputs
from pipeline_lib.models.coefficients import products_dtype
from pipeline_lib.models.concept import LORA_FILE, TRIPLE_FILE
from pipeline_lib.models.lora_export import write_lora
from pipeline_lib.models.lora_file import used_loras
from pipeline_lib.models.lora_names import Layers
from pipeline_lib.models.lora_start import energy_lost
from pipeline_lib.models.lora_use import start_layers
from pipeline_lib.models.triple import LoraTriple
from pipeline_lib.records import ArtifactRef, StageSpec, StepRecord
from pipeline_lib.seeding import derived_seed
from pipeline_lib.steps.caption import load_captions
from pipeline_lib.steps.generate import companions, wording
from pipeline_lib.steps.layout import LOSSES_FILE, SPEC_FILE
from pipeline_lib.steps.other_ranks import other_ranks
from pipeline_lib.steps.sampling import user_sampling
from pipeline_lib.steps.step import Recipe, StepContext, StepResult, find_or_build
from pipeline_lib.storage import write_atomic
from pipeline_lib.training.checkpoint import Checkpoints, as_json_lines
from pipeline_lib.training.data import PriorData, TrainingData
from pipeline_lib.training.loop import run_stage
from pipeline_lib.training.sharding import check_shardable, shard
from pipeline_lib.training.stage import Stage

STAGE_VERSION = 2
KIND = "stage"
WHOLE_BATCH = 1_000_000
START_LOST = "start_energy_lost"


def train(context: StepContext, spec: StageSpec, inputs: dict[str, ArtifactRef]) -> StepResult:
    """Trains a stage and writes its factors, its curve and its spec; previews go into the run's own folder.

    Args:
        context: where and how.
        spec: as the method planned it.
        inputs: `data`, `captions`, and where there are such `prior` and `after`, the stage before.

    Returns:
        The stage's result, found or made, with its figures.
    """
    recipe = Recipe(
        step=f"train-{spec.name}",
        kind=KIND,
        version=STAGE_VERSION,
        inputs=[inputs[name] for name in ("data", "prior", "after") if name in inputs],
        settings={"spec": spec.model_dump(mode="json")},
        extra={**context.base_facts(), **_products(context)},
    )

    def make(folder: Path, key: str) -> dict[str, float]:
        method, sharded = context.method.method, context.config.training.sharded
        work = context.store.work_folder(KIND, key)
        checkpoints = Checkpoints(work, context.config.training.checkpoint_every)
        stage = build_stage(context, spec, inputs)
        try:
            _check_shares(context, stage)
            restored = checkpoints.latest_step()
            if restored:
                context.emit({"event": "resumed", "step": recipe.step, "at": restored})
            tell = _teller(context, stage, inputs["captions"], restored)
            with other_ranks(context, spec, inputs, work) as ranks:
                place = shard(stage, ranks) if sharded else ranks
                history = run_stage(stage, checkpoints, on_step=tell, stop=context.stop, ranks=place)
            figures = method.finish(stage, folder)
            _export(context, spec, folder)
        finally:
            method.release(stage)
            context.base.set_gradient_checkpointing(False)
            if sharded:
                context.shelf.drop_base()
        write_atomic(folder / LOSSES_FILE, as_json_lines(history))
        write_atomic(folder / SPEC_FILE, spec.model_dump_json(indent=1))
        return {**figures, **_start_figures(context, spec), **_last(history)}

    result = find_or_build(context, recipe, make)
    asked_in_vain = result.found and preview_interval(context) and not list(_previews(context, spec).glob("*.mp4"))
    notes = _start_notes(result, spec)
    if asked_in_vain:
        notes.append(f"stage {spec.name} was found trained: previews are made only while a stage trains")
    return result.model_copy(update={"notes": tuple(notes)})


def _products(context: StepContext) -> dict[str, str]:
    """What a stage's key holds besides, where the adapter is not multiplied in float32."""
    dtype = products_dtype(context.base.device, context.base.dtype)
    return {} if dtype == torch.float32 else {"products": str(dtype).removeprefix("torch.")}


def _start_notes(result: StepResult, spec: StageSpec) -> list[str]:
    lost = result.figures.get(START_LOST, 0.0)
    if not lost:
        return []
    rank = f"rank {spec.settings['rank']} leaves out {lost:.1%} of the squared size of the LoRA it starts from"
    return [f"stage {spec.name}: {rank}; a higher method.settings.rank keeps more"]


def preview_interval(context: StepContext) -> int:
    """Steps between previews, 0 for none: the config's, up to a whole number of checkpoints.

    A preview is made at a checkpoint, so that a resumed run makes the same ones.
    """
    training = context.config.training
    if context.previews is None:
        return 0
    return math.ceil(training.preview_every / training.checkpoint_every) * training.checkpoint_every


def build_stage(context: StepContext, spec: StageSpec, inputs: Mapping[str, ArtifactRef]) -> Stage:
    """The live stage, in any of the processes that train it.

    Args:
        context: where and how.
        spec: as the method planned it.
        inputs: as for :func:`train`.

    Returns:
        The stage, at its start, on the context's base.
    """
    store = context.store
    context.base.free_encoders()  # latents and text are cached; a preview loads them again
    training = context.config.training
    context.base.set_gradient_checkpointing(training.gradient_checkpointing, keep_attention=training.keep_attention)
    return context.method.method.build(
        spec,
        context.base,
        StageInputs(
            data=TrainingData.load(store.folder(inputs["data"])),
            prior=PriorData.load(store.folder(inputs["prior"])) if "prior" in inputs else None,
            previous=store.folder(inputs["after"]) if "after" in inputs else None,
            seed=context.config.seed,
            micro_batch=context.micro_batch or WHOLE_BATCH,
            start=_start(context, spec),
        ),
    )


def _check_shares(context: StepContext, stage: Stage) -> None:
    processes, samples = context.config.training.processes, min(stage.step_sizes())
    if processes > samples:
        raise ConfigError(
            f"training.processes: {processes} processes share the samples of a step",
            got=f"{samples} samples in stage {stage.spec.name}",
            fix="use fewer processes, or a larger method.settings.batch",
        )
    if context.config.training.sharded:
        check_shardable(stage, processes)


def _start(context: StepContext, spec: StageSpec) -> Layers:
    """What a stage starts from, where the plan says that it starts from a LoRA."""
    planned = spec.settings.get("start", [])
    loras = used_loras(context.config.method.start) if planned else ()
    if [lora.fact.identity for lora in loras] != list(planned):
        raise InputError("method.start: a file was changed while the run was going", fix="run again")
    return start_layers(loras, context.base)


def _start_figures(context: StepContext, spec: StageSpec) -> dict[str, float]:
    """How much of the LoRA that a stage starts from has no room in its rank."""
    layers = _start(context, spec)
    return {START_LOST: energy_lost(layers, int(spec.settings["rank"]))} if layers else {}


def _previews(context: StepContext, spec: StageSpec) -> Path:
    assert context.previews is not None
    return context.previews / spec.name


def _teller(context: StepContext, stage: Stage, captions: ArtifactRef, restored: int) -> Callable[[StepRecord], None]:
    """Tells every step, and makes previews at those that are trained now, after the `restored` ones."""
    step_name, every = f"train-{stage.spec.name}", preview_interval(context)

    def tell(record: StepRecord) -> None:
        metrics = {name: round(value, 8) for name, value in record.metrics.items()}
        seconds = round(record.seconds, 4)
        context.progress(step_name, record.step, record.steps, metrics=metrics, seconds=seconds)
        if every and record.step % every == 0 and record.step > restored:
            video = _previews(context, stage.spec) / f"{record.step:06d}.mp4"
            _preview(context, stage, captions, video)
            context.emit({"event": "preview", "step": step_name, "at": record.step, "path": str(video)})

    return tell


def _preview(context: StepContext, stage: Stage, captions: ArtifactRef, video: Path) -> None:
    spoken = load_captions(context.store, captions)
    text = wording(context, spoken, tuple(stage.vectors)).fill(spoken[0].full_prompt("{subject}"))
    seed, sampling = derived_seed(context.config.seed, "preview"), user_sampling(context)
    with tempfile.TemporaryDirectory() as scratch:
        if stage.vectors or stage.self_conditioning:
            context.method.method.finish(stage, Path(scratch))  # writes what was trained beside the factors
        with stage.adapter.evaluating(), companions(context, Path(scratch)):
            frames = generate(context.base, text, seed, sampling)
    context.base.free_encoders()  # training goes on without them
    write_video(frames, video, sampling.frames_per_second)


def _export(context: StepContext, spec: StageSpec, folder: Path) -> None:
    facts = {"method": spec.method, "stage": spec.name, "base_digest": context.base.digest}
    triple = LoraTriple.load(folder / TRIPLE_FILE)
    write_lora(triple, folder / LORA_FILE, family=context.base.spec.name, provenance=facts)


def _last(history: list[StepRecord]) -> dict[str, float]:
    final = next((record.metrics for record in reversed(history) if "validation_loss" in record.metrics), {})
    return {f"final_{name}": final[name] for name in ("loss", "validation_loss") if name in final}
