"""Clips get captions."""

from __future__ import annotations

from pipeline_lib.steps.step import StepResult
from tasks.session import current_session
from tasks.stage_task import stage_task


@stage_task("caption")
def caption(clips: StepResult) -> StepResult:
    """Takes given captions, or asks the captioner."""
    return current_session().step("caption", {"clips": clips})
