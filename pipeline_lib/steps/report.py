"""Report: one self-contained page about a run."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.generation.sample import asked_num_frames, frame_rate, low_noise_guidance
from pipeline_lib.media.sheet import contact_sheet
from pipeline_lib.models.concept import Companions, read_concept
from pipeline_lib.models.families import family_named
from pipeline_lib.records import ArtifactRef, StepRecord
from pipeline_lib.registry import BASES
from pipeline_lib.report.inputs import ReportClip, ReportInputs, ReportSample, ReportStage
from pipeline_lib.report.page import write_report
from pipeline_lib.steps.caption import load_captions
from pipeline_lib.steps.evaluate import load_scores
from pipeline_lib.steps.generate import load_samples
from pipeline_lib.steps.layout import CEILING, LOSSES_FILE, REPORT_FILE, SHEET_FILE, SPEC_FILE
from pipeline_lib.steps.mask import load_masks, mask_notes, masked_frames
from pipeline_lib.steps.plan import RunPlan
from pipeline_lib.steps.prepare import load_clips, view_files
from pipeline_lib.steps.sampling import user_sampling
from pipeline_lib.steps.step import Recipe, StepContext, StepResult, find_or_build

STAGE_VERSION = 2
KIND = "report"


def report(context: StepContext, plan: RunPlan, inputs: dict[str, ArtifactRef]) -> StepResult:
    """Writes `report.html`, and `contact_sheet.png` for those who cannot play it.

    Args:
        context: store and config.
        plan: of the run.
        inputs: as :func:`~pipeline_lib.steps.plan.report_inputs` lists them.

    Returns:
        The report, found or made.
    """
    recipe = Recipe(
        step="report",
        kind=KIND,
        version=STAGE_VERSION,
        inputs=list(inputs.values()),
        settings={"plan": plan.model_dump(mode="json"), "config": _settings(context)},
    )

    def make(folder: Path, _: str) -> None:
        write_report(_report_inputs(context, plan, inputs), folder / REPORT_FILE)
        contact_sheet(_sheet_rows(context, inputs), folder / SHEET_FILE)

    return find_or_build(context, recipe, make)


def _report_inputs(context: StepContext, plan: RunPlan, inputs: dict[str, ArtifactRef]) -> ReportInputs:
    store = context.store
    folder = store.folder(inputs["concept"])
    named = BASES.get(plan.base)
    made = {name: _made(context, ref) for name, ref in inputs.items()}
    return ReportInputs(
        concept=read_concept(folder).record,
        created=datetime.now(UTC),
        seconds=sum(facts.seconds for facts in made.values()),
        clips=_clips(context, inputs),
        samples=_samples(context, inputs),
        scores=tuple(load_scores(store, inputs["scores"])),
        training=tuple(step for spec in plan.stages for step in _curve(context, inputs[f"stage-{spec.name}"])),
        stages={spec.name: made[f"stage-{spec.name}"] for spec in plan.stages},
        settings=_settings(context),
        provenance={"device": plan.device, "dtype": plan.dtype, "preset": plan.preset, "licence": plan.licence},
        artifacts=tuple(inputs.values()),
        notes=(*plan.notes, *_input_notes(context, inputs)),
        base_source=str(named.folder) if named else plan.base,
        base_revision=context.config.base.revision,
        call=_stock_call(context),
        stock_changes=family_named(context.base.spec.name).stock_changes,
        loras=tuple(sorted(file.name for file in folder.glob("lora*.safetensors"))),
        # The bases with a name of ours are ours; a family with other names for ComfyUI needs an export of its own.
        in_comfy=named is None and not family_named(context.base.spec.name).comfy_names,
        learned_words=Companions.load(folder) != Companions(),
    )


def _input_notes(context: StepContext, inputs: dict[str, ArtifactRef]) -> list[str]:
    clips = load_clips(context.store, inputs["clips"])
    tracks = load_masks(context.store, inputs["masks"]) if "masks" in inputs else None
    notes = [note for clip in clips for note in clip.record.notes]
    return notes if tracks is None else [*notes, *mask_notes(clips, tracks)]


def _made(context: StepContext, ref: ArtifactRef) -> ReportStage:
    notes = context.store.get(ref).manifest.notes
    return ReportStage(seconds=float(notes.get("seconds", 0.0)), figures=notes.get("figures", {}))


def _stock_call(context: StepContext) -> dict[str, float | str]:
    import diffusers

    settings = user_sampling(context)
    told = {"negative_prompt": settings.negative_prompt} if settings.negative_prompt else {}
    return {
        "num_frames": asked_num_frames(settings.num_frames, context.base.spec.temporal_factor),
        "height": settings.height,
        "width": settings.width,
        "num_inference_steps": settings.num_inference_steps,
        "guidance_scale": settings.guidance_scale,
        **low_noise_guidance(context.base.spec, settings),
        **frame_rate(getattr(diffusers, context.base.folder.pipeline_class), settings),
        **told,
    }


def _sheet_rows(context: StepContext, inputs: dict[str, ArtifactRef]) -> list[tuple[str, NDArray[np.uint8]]]:
    clips = load_clips(context.store, inputs["clips"])
    rows = [(f"learned from: {clip.record.name}", clip.frames) for clip in clips]
    if "masks" in inputs:
        masked = zip(clips, load_masks(context.store, inputs["masks"]), strict=True)
        rows += [(f"what the loss looks at: {clip.record.name}", masked_frames(clip, track)) for clip, track in masked]
    pairs = zip(*(load_samples(context.store, inputs[name]) for name in ("before", "after")), strict=True)
    for pair in pairs:
        rows += [(f"{record.model}, seed {record.seed}: {record.filled_prompt}", frames) for record, frames in pair]
    return rows


def _settings(context: StepContext) -> dict[str, object]:
    return context.config.model_dump(mode="json", exclude={"tracking"})


def _clips(context: StepContext, inputs: dict[str, ArtifactRef]) -> tuple[ReportClip, ...]:
    clips = load_clips(context.store, inputs["clips"])
    captions = load_captions(context.store, inputs["captions"])
    folder = context.store.folder(inputs["clips"])
    rebuilt = context.store.folder(inputs["scores"]) / CEILING
    return tuple(
        ReportClip(
            record=clip.record,
            files=view_files(folder / str(index)),
            reconstructions=view_files(rebuilt / str(index)),
            caption=caption,
        )
        for index, (clip, caption) in enumerate(zip(clips, captions, strict=True))
    )


def _samples(context: StepContext, inputs: dict[str, ArtifactRef]) -> tuple[ReportSample, ...]:
    return tuple(
        ReportSample(record=record, file=context.store.folder(inputs[name]) / record.file)
        for name in ("before", "after")
        for record, _ in load_samples(context.store, inputs[name])
    )


def _curve(context: StepContext, stage: ArtifactRef) -> list[StepRecord]:
    folder = context.store.folder(stage)
    spec = json.loads((folder / SPEC_FILE).read_text())
    steps = []
    for line in (folder / LOSSES_FILE).read_text().splitlines():
        values = json.loads(line)
        step = values.pop("step")
        steps.append(StepRecord(stage=spec["name"], step=step, steps=spec["steps"], metrics=values, seconds=0.0))
    return steps
