"""A stage's events become a Prefect progress artifact, throttled, and metrics, batched."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from pipeline_lib.records import StageSpec
from pipeline_lib.steps.layout import LOSSES_FILE
from pipeline_lib.steps.step import StepResult
from pipeline_lib.tracking import Metric, Tracker, status_after

EVERY_SECONDS = 2.0


class StageWatch:
    """Watches one stage; the stage's own run is opened with its first event.

    Args:
        tracker: of the whole run.
        spec: what is trained.
    """

    def __init__(self, tracker: Tracker, spec: StageSpec) -> None:
        self._parent, self._spec = tracker, spec
        self._stage: Tracker | None = None
        self._metrics: list[Metric] = []
        self._artifact: UUID | None = None
        self._told = 0.0

    def on_event(self, event: dict[str, Any]) -> None:
        """Takes an event of the worker."""
        if event["event"] == "progress" and "metrics" in event:
            values = {**event["metrics"], "seconds": event["seconds"]}
            self._metrics += [(name, value, event["done"]) for name, value in values.items()]
            if time.monotonic() - self._told > EVERY_SECONDS:
                self._tell(event["done"] / event["total"])
        elif event["event"] == "preview":
            self._tracker().log_artifact(Path(event["path"]), "previews")

    def finish(self, result: StepResult, folder: Path) -> None:
        """Notes what the live metrics lacked, and the stage's LoRA as a model.

        Args:
            result: of the stage.
            folder: of its artifact.
        """
        if not self._parent.run_id:
            return
        if not result.found:
            self._tell(1.0)
        tracker = self._tracker()
        for line in (folder / LOSSES_FILE).read_text().splitlines():
            values = json.loads(line)
            step = values.pop("step")
            tracker.log_metrics([(name, value, step) for name, value in values.items()])
        tracker.log_concept(folder, "stage", self._spec.name, result.figures, register=False)
        tracker.end()

    def fail(self, error: BaseException) -> None:
        """Notes that the stage ended early, where its own run was opened; another try goes on with that run."""
        if self._stage is None:
            return
        if self._metrics:
            self._stage.log_metrics(self._metrics)
            self._metrics = []
        self._stage.end(status_after(error))

    def _tracker(self) -> Tracker:
        if self._stage is None:
            self._stage = self._parent.child(self._spec.name, self._spec.model_dump(mode="json"))
        return self._stage

    def _tell(self, share: float) -> None:
        self._told = time.monotonic()
        if self._metrics:
            self._tracker().log_metrics(self._metrics)
            self._metrics = []
        percent = round(100 * share, 1)
        if self._artifact is None:
            key = re.sub(r"[^a-z0-9]+", "-", f"train-{self._spec.name}".lower())
            made = create_progress_artifact(percent, key=key, description=f"training {self._spec.name}")
            assert isinstance(made, UUID)
            self._artifact = made
        else:
            update_progress_artifact(self._artifact, percent)
