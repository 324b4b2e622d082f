"""Files become clips at the base's size and rate."""

from __future__ import annotations

from pipeline_lib.steps.step import StepResult
from tasks.session import current_session
from tasks.stage_task import stage_task


@stage_task("prepare")
def prepare() -> StepResult:
    """Decodes and fits the inputs."""
    return current_session().step("prepare", {})
