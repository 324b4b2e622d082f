"""Plan: which stages a run will train, on what; known once the inputs are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pipeline_lib.models.lora_file import used_loras
from pipeline_lib.records import ArtifactRef, LoraFact, Record, StageSpec
from pipeline_lib.steps.prepare import has_clips, load_clips
from pipeline_lib.steps.step import StepContext

SCORED = ("clips", "captions", "before", "after", "masks")
REPORTED = ("clips", "captions", "masks", "before", "data", "prior", "after", "scores", "concept")
"""What the report shows or counts, by the names that the road gives its results; stages come beside."""

Result = TypeVar("Result")


class RunPlan(Record):
    """What a run is about to do; torch-free, so that the parent can read it."""

    base: str
    base_digest: str
    family: str
    licence: str
    device: str
    dtype: str
    method: str
    preset: str
    settings: dict[str, Any]
    stages: tuple[StageSpec, ...]
    has_prior: bool
    notes: tuple[str, ...] = ()
    loras: tuple[LoraFact, ...] = ()
    started_from: tuple[LoraFact, ...] = ()


def plan(context: StepContext, clips: ArtifactRef) -> RunPlan:
    """Asks the method for its stages.

    Args:
        context: config, method and base.
        clips: of the step prepare; without motion among them the method plans for images.

    Returns:
        Base, method, stages in order, and notes for the user.

    Raises:
        ConfigError: no such method, preset or setting.
        InputError: the method needs what the input, or the base, has not.
    """
    choice, base = context.method, context.base
    moving = has_clips(load_clips(context.store, clips))
    stages = tuple(choice.method.plan(choice.settings, moving))
    for stage in stages:  # what a base has no layers for is refused before anything is encoded
        base.spec.adapted(bool(stage.settings.get("cross_attention", True)))
    names = " and ".join(stage.name for stage in stages)
    notes = () if moving else (f"only images were given: appearance is learned (stage {names} alone), motion is not",)
    started = tuple(lora.fact for lora in used_loras(context.config.method.start))
    facts = context.base_facts()
    return RunPlan(
        base=context.config.base.source,
        base_digest=base.digest,
        family=base.spec.name,
        licence=base.spec.licence,
        device=str(base.device),
        dtype=facts["dtype"],
        method=choice.method.name,
        preset=choice.preset,
        settings=choice.settings.model_dump(mode="json"),
        stages=tuple(_started(stage, started) for stage in stages),
        has_prior=choice.method.prior(choice.settings) is not None,
        notes=(*notes, *_lora_notes([lora.fact for lora in base.loras], started)),
        loras=tuple(lora.fact for lora in base.loras),
        started_from=started,
    )


def _started(stage: StageSpec, loras: Sequence[LoraFact]) -> StageSpec:
    """A first stage's spec, which says what it starts from, so that its key does."""
    if not loras or stage.after is not None:
        return stage
    start = {"start": [lora.identity for lora in loras]}
    return stage.model_copy(update={"settings": {**stage.settings, **start}})


def _lora_notes(on_base: Sequence[LoraFact], started: Sequence[LoraFact]) -> list[str]:
    notes = []
    if on_base:
        notes.append(
            f"trained on the base with {', '.join(map(str, on_base))}: the exported LoRA does not hold that, so load "
            "it as well wherever the concept is used"
        )
    if started:
        notes.append(f"training started from {', '.join(map(str, started))}, which is part of the exported LoRA")
    return notes


def report_inputs(made: Mapping[str, Result], stages: Mapping[str, Result]) -> dict[str, Result]:
    """What the step report is given; both roads ask here, so that the report's key is the same on both.

    Args:
        made: results, or references to them, by name; others than REPORTED do not count.
        stages: the same of each stage, by the stage's name, in order of training.

    Returns:
        Each once: those of `made`, then `stage-<name>`.
    """
    chosen = {name: made[name] for name in REPORTED if name in made}
    return {**chosen, **{f"stage-{name}": result for name, result in stages.items()}}
