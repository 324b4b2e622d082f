"""Samples of the base and of the personalised model, same prompts and seeds."""

from __future__ import annotations

from pipeline_lib.steps.step import StepResult
from tasks.session import current_session
from tasks.stage_task import stage_task


@stage_task("generate-base")
def generate_base(captions: StepResult) -> StepResult:
    """Samples the base; shared by all runs with the same prompts."""
    return current_session().step("generate-base", {"captions": captions})


@stage_task("generate-personalised")
def generate_personalised(captions: StepResult, stage: StepResult) -> StepResult:
    """Samples the model with the last stage's factors."""
    return current_session().step("generate-personalised", {"captions": captions, "stage": stage})
