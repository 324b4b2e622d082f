"""Samples are scored against the reference."""

from __future__ import annotations

from pipeline_lib.steps.plan import SCORED
from pipeline_lib.steps.step import StepResult
from tasks.session import current_session
from tasks.stage_task import stage_task


@stage_task("evaluate")
def evaluate(made: dict[str, StepResult]) -> StepResult:
    """Scores `before` and `after` against `clips`, whose `masks` there may be."""
    return current_session().step("evaluate", {name: made[name] for name in SCORED if name in made})
