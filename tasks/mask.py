"""Clips get masks of their subject."""

from __future__ import annotations

from pipeline_lib.steps.step import StepResult
from tasks.session import current_session
from tasks.stage_task import stage_task


@stage_task("mask")
def mask(clips: StepResult) -> StepResult:
    """Finds the subject in every frame."""
    return current_session().step("mask", {"clips": clips})
