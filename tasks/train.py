"""One training stage."""

from __future__ import annotations

from pipeline_lib.records import StageSpec
from pipeline_lib.steps.step import StepResult
from tasks.session import current_session
from tasks.show import show_stage
from tasks.stage_task import stage_task
from tasks.turn import turn
from tasks.watch import StageWatch


@stage_task("train-{spec.name}")
def train(spec: StageSpec, inputs: dict[str, StepResult]) -> StepResult:
    """Trains the stage in the worker; its steps become progress and metrics on the way."""
    session = current_session()
    watch = StageWatch(session.tracker, spec)
    try:
        session.plan(session.steps["prepare"])  # opens the base: first the device, then the turn, in every run
        with turn():
            result = session.step(f"train-{spec.name}", inputs, watch.on_event, spec=spec)
    except BaseException as error:
        watch.fail(error)
        raise
    folder = session.store.folder(result.ref)
    session.models[spec.name] = watch.finish(result, folder, session.models.get(spec.after or "", ""))
    show_stage(spec, result, folder, watch.url)
    return result
