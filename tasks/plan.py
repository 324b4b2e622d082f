"""Which stages a run will train."""

from __future__ import annotations

from prefect import task

from pipeline_lib.steps.plan import RunPlan
from pipeline_lib.steps.step import StepResult
from tasks.session import current_session
from tasks.stage_task import ROAD


@task(task_run_name="plan", **ROAD)
def plan(clips: StepResult) -> RunPlan:
    """Asks the method, which has to know whether there is motion to learn."""
    return current_session().plan(clips)
