"""Samples are scored against the reference."""

from __future__ import annotations

from pipeline_lib.steps.step import StepResult
from tasks.session import current_session
from tasks.stage_task import stage_task


@stage_task("evaluate")
def evaluate(made: dict[str, StepResult]) -> StepResult:
    """Scores `before` and `after` against `clips`."""
    return current_session().step("evaluate", {name: made[name] for name in ("clips", "captions", "before", "after")})
