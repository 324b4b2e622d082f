"""One page about the run."""

from __future__ import annotations

from pipeline_lib.steps.plan import RunPlan, report_inputs
from pipeline_lib.steps.step import StepResult
from tasks.session import current_session
from tasks.stage_task import stage_task


@stage_task("report")
def report(plan: RunPlan, made: dict[str, StepResult], stages: dict[str, StepResult]) -> StepResult:
    """Writes the self-contained page."""
    return current_session().step("report", report_inputs(made, stages), plan=plan)
