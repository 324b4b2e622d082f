"""The base's own clips of the class."""

from __future__ import annotations

from pipeline_lib.steps.step import StepResult
from tasks.session import current_session
from tasks.stage_task import stage_task


@stage_task("prior")
def prior(captions: StepResult) -> StepResult:
    """Samples the prior set, once for each class and base."""
    return current_session().step("prior", {"captions": captions})
