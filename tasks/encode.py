"""Clips and captions become latents and text conditioning."""

from __future__ import annotations

from pipeline_lib.steps.step import StepResult
from tasks.session import current_session
from tasks.stage_task import stage_task


@stage_task("encode")
def encode(clips: StepResult, captions: StepResult, masks: StepResult | None = None) -> StepResult:
    """Encodes once for all stages."""
    sources = {"clips": clips, "captions": captions}
    return current_session().step("encode", {**sources, "masks": masks} if masks else sources)
