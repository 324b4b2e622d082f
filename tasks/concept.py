"""The export folder."""

from __future__ import annotations

from pipeline_lib.steps.plan import RunPlan
from pipeline_lib.steps.step import StepResult
from tasks.session import current_session
from tasks.stage_task import stage_task


@stage_task("concept")
def concept(plan: RunPlan, made: dict[str, StepResult]) -> StepResult:
    """Writes the concept of the last stage, with its plain LoRA."""
    return current_session().step("concept", {name: made[name] for name in ("clips", "captions", "stage")}, plan=plan)
