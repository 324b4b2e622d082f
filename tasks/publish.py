"""The finished run: its folder, its page in MLflow, its model."""

from __future__ import annotations

from prefect import task

from pipeline_lib.records import ClipRecord
from pipeline_lib.steps.plan import RunPlan
from pipeline_lib.steps.prepare import load_clips
from pipeline_lib.steps.run_folder import RunResult
from tasks.promote import promote
from tasks.session import RunSession, current_session
from tasks.show import show_result, show_scores
from tasks.stage_task import ROAD


@task(task_run_name="publish", **ROAD)
def publish(plan: RunPlan) -> RunResult:
    """Collects outputs into the run folder, logs them, and registers the final LoRA."""
    session = current_session()
    if session.finished is None:
        session.collect(plan)
        log_outputs(session, session.models.get(plan.stages[-1].name, ""))
        session.finish()
    result = session.result()
    show_scores(result.scores, result.run_id)
    show_result(result)
    return result


def clip_records(session: RunSession) -> list[ClipRecord]:
    """What was learned from."""
    return [clip.record for clip in load_clips(session.store, session.steps["prepare"].ref)]


def log_outputs(session: RunSession, trained: str) -> None:
    """Clips as data sets, the sheet and the page as artifacts, the concept as a registered model.

    Args:
        session: whose results stand.
        trained: the model of the stage that was trained last.
    """
    tracker, folder = session.tracker, session.folder.path
    for record in clip_records(session):
        tracker.log_clip(record)
    for name in ("report.html", "config.yaml"):
        tracker.log_artifact(folder / name)
    tracker.log_image(folder / "contact_sheet.png", "samples", 0)
    scores = session.result().scores["personalised"]
    register = session.config.tracking.register_model
    name = session.config.concept_name
    model = tracker.log_concept(folder / "concept", name, "concept", scores, register=register, follows=trained)
    if register and model:
        promote(session, model)
