"""Samples of the base and of the personalised model, same prompts and seeds."""

from __future__ import annotations

from pipeline_lib.steps.step import StepResult
from tasks.session import current_session
from tasks.show import show_samples
from tasks.stage_task import stage_task


@stage_task("generate-base")
def generate_base(captions: StepResult) -> StepResult:
    """Samples the base; shared by all runs with the same prompts."""
    return _shown("base", current_session().step("generate-base", {"captions": captions}))


@stage_task("generate-personalised")
def generate_personalised(captions: StepResult, stage: StepResult) -> StepResult:
    """Samples the model with the last stage's factors."""
    inputs = {"captions": captions, "stage": stage}
    return _shown("personalised", current_session().step("generate-personalised", inputs))


def _shown(which: str, result: StepResult) -> StepResult:
    """To be seen at once in both UIs, long before the run is done."""
    session = current_session()
    if session.finished is None:
        folder = session.store.folder(result.ref)
        for video in sorted(folder.glob("*.mp4")):
            session.tracker.log_artifact(video, f"samples/{which}")
        show_samples(which, result, folder, session.tracker.url)
    return result
