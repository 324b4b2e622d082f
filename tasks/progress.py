"""How far each step is, for Prefect's UI: a bar with the time left, updated in place, and a line of log at its end."""

from __future__ import annotations

import re
import time
from collections import deque
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

from pipeline_lib.report.wording import duration
from tasks.courtesy import courtesy

EVERY_SECONDS = 2.0
COST_SHARE = 0.02  # of a step's time at most, where the server is slow
_PACE_OVER = 50
_PIECES = {"train": "steps", "prior": "clips", "generate": "samples", "evaluate": "pieces"}


def key_of(text: str) -> str:
    """A key as Prefect's artifacts have them: lowercase letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


class Progress:
    """Listens to a run's worker; belongs to the flow's own thread."""

    def __init__(self) -> None:
        self._bars: dict[str, _Bar] = {}
        self._waits = ""

    def on_event(self, event: dict[str, Any]) -> None:
        """Takes an event of the worker, or the end of a step."""
        kind = event["event"]
        if kind == "progress":
            self._bars.setdefault(event["step"], _Bar(event["step"])).advance(event)
        elif kind == "waiting" and event["words"] != self._waits:
            self._waits = event["words"]
            get_run_logger().info("%s", self._waits)
        elif kind == "resumed":
            get_run_logger().info("%s: goes on from step %d", event["step"], event["at"])
        elif kind == "done":
            bar = self._bars.pop(event["step"], None)
            if bar is not None:
                bar.finish()
            get_run_logger().info("%s", _milestone(event))


class _Bar:
    """One step's bar; there is none before the first pause between two tellings is over."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._last: dict[str, Any] = {}
        self._paces: deque[float] = deque(maxlen=_PACE_OVER)
        self._began = self._moved = self._told = time.monotonic()
        self._pause = EVERY_SECONDS
        self._artifact: UUID | None = None

    def advance(self, event: dict[str, Any]) -> None:
        now = time.monotonic()
        # A resumed stage tells its restored steps at once; each still knows how long it took.
        self._paces.append(event.get("seconds", now - self._moved))
        self._moved, self._last = now, event
        if now - self._told >= self._pause:
            self._tell(100 * event["done"] / event["total"], _words(event, sum(self._paces) / len(self._paces)))
            self._told = time.monotonic()
            self._pause = max(EVERY_SECONDS, (self._told - now) / COST_SHARE)

    def finish(self) -> None:
        if self._artifact is not None:
            took = duration(time.monotonic() - self._began)
            self._tell(100, f"**{self._step}**: {self._last['total']} {_pieces(self._step)} in {took}")

    def _tell(self, percent: float, words: str) -> None:
        percent = round(percent, 1)
        with courtesy(f"the progress of {self._step}"):
            if self._artifact is None:
                made = create_progress_artifact(percent, key=f"progress-{key_of(self._step)}", description=words)
                assert isinstance(made, UUID)
                self._artifact = made
            else:
                update_progress_artifact(self._artifact, percent, words)


def _pieces(step: str) -> str:
    return _PIECES.get(step.partition("-")[0], "pieces")


def _words(event: dict[str, Any], pace: float) -> str:
    left = duration(pace * (event["total"] - event["done"]))
    loss = event.get("metrics", {}).get("loss")
    told = "" if loss is None else f", loss {loss:.4f}"
    return f"**{event['step']}**: {event['done']} of {event['total']} {_pieces(event['step'])}, {left} left{told}"


def _milestone(event: dict[str, Any]) -> str:
    if event["found"]:
        return f"{event['step']}: found, nothing to do"
    figures = ", ".join(f"{name} {value:.4g}" for name, value in event["figures"].items())
    return f"{event['step']}: done in {duration(event['seconds'])}{figures and '; '}{figures}"
