"""Plan: which stages a run will train, on what; known once the inputs are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pipeline_lib.records import ArtifactRef, Record, StageSpec
from pipeline_lib.steps.prepare import has_clips, load_clips
from pipeline_lib.steps.step import StepContext

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


def plan(context: StepContext, clips: ArtifactRef) -> RunPlan:
    """Asks the method for its stages.

    Args:
        context: config, method and base.
        clips: of the step prepare; without motion among them the method plans for images.

    Returns:
        Base, method, stages in order, and notes for the user.

    Raises:
        ConfigError: no such method, preset or setting.
        InputError: the method needs what the input has not.
    """
    choice, base = context.method, context.base
    moving = has_clips(load_clips(context.store, clips))
    stages = tuple(choice.method.plan(choice.settings, moving))
    names = " and ".join(stage.name for stage in stages)
    notes = () if moving else (f"only images were given: appearance is learned (stage {names} alone), motion is not",)
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
        stages=stages,
        has_prior=choice.method.prior(choice.settings) is not None,
        notes=notes,
    )


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
