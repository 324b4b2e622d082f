"""A stage's events become metrics, batched, and previews, in the stage's own run."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from pipeline_lib.records import StageSpec
from pipeline_lib.steps.layout import LOSSES_FILE
from pipeline_lib.steps.step import StepResult
from pipeline_lib.tracking import Metric, Tracker, is_away, status_after

log = logging.getLogger(__name__)

EVERY_SECONDS = 2.0
AWAY_SECONDS = 60.0
"""Between two tries while MLflow is away, each of which waits for as long as MLflow's client does."""


class StageWatch:
    """Watches one stage; the stage's own run is opened with its first metrics.

    Args:
        tracker: of the whole run.
        spec: what is trained.
    """

    def __init__(self, tracker: Tracker, spec: StageSpec) -> None:
        self._parent, self._spec = tracker, spec
        self._stage: Tracker | None = None
        self._metrics: list[Metric] = []
        self._previews: list[Path] = []
        self._next = 0.0

    @property
    def url(self) -> str:
        """The stage's page; empty where there is none."""
        return self._stage.url if self._stage is not None else ""

    def on_event(self, event: dict[str, Any]) -> None:
        """Takes an event of the worker; where MLflow is away, what it tells is kept and sent later."""
        if event["event"] == "progress" and "metrics" in event:
            values = {**event["metrics"], "seconds": event["seconds"]}
            self._metrics += [(name, value, event["done"]) for name, value in values.items()]
        elif event["event"] == "preview":
            self._previews.append(Path(event["path"]))
        if time.monotonic() < self._next or not (self._metrics or self._previews):
            return
        try:
            self._send()
            self._next = time.monotonic() + EVERY_SECONDS
        except Exception as error:
            if not is_away(error):
                raise
            log.warning("MLflow is away; stage %s goes on and tells it later: %s", self._spec.name, error)
            self._next = time.monotonic() + AWAY_SECONDS

    def finish(self, result: StepResult, folder: Path, follows: str) -> str:
        """Notes what the live metrics lacked, and the stage's LoRA as a model.

        Args:
            result: of the stage.
            folder: of its artifact.
            follows: the model of the stage that it was trained on; empty: of none.

        Returns:
            The model's uri; empty where nothing is written down.
        """
        if not self._parent.run_id:
            return ""
        self._send()
        tracker = self._tracker()
        for line in (folder / LOSSES_FILE).read_text().splitlines():
            values = json.loads(line)
            step = values.pop("step")
            tracker.log_metrics([(name, value, step) for name, value in values.items()])
        model = tracker.log_concept(folder, "stage", self._spec.name, result.figures, register=False, follows=follows)
        tracker.end()
        return model

    def fail(self, error: BaseException) -> None:
        """Notes that the stage ended early, where its own run was opened; another try goes on with that run."""
        if self._stage is None:
            return
        try:
            self._send()
            self._stage.end(status_after(error))
        except Exception:  # what ended the stage is what the person must hear
            log.warning("the end of stage %s could not be written down", self._spec.name, exc_info=True)

    def _tracker(self) -> Tracker:
        if self._stage is None:
            self._stage = self._parent.child(self._spec.name, self._spec.model_dump(mode="json"))
        return self._stage

    def _send(self) -> None:
        if self._metrics:
            self._tracker().log_metrics(self._metrics)  # a step that is sent again is there once
            self._metrics = []
        while self._previews:
            self._tracker().log_artifact(self._previews[0], "previews")
            del self._previews[0]
