"""What a person sees while a run runs: one line a step, a bar, the time left; on standard error."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.progress import TaskID as BarID

_WORDS = {
    "prepare": "reading the clip",
    "caption": "describing it",
    "mask": "finding the subject",
    "generate-base": "sampling the base",
    "encode": "encoding",
    "prior": "sampling what the base knows of the class",
    "generate-personalised": "sampling the personalised model",
    "evaluate": "scoring",
    "concept": "exporting",
    "report": "writing the report",
}


class RunView:
    """A progress display fed by the worker's events; a context manager. Drawn from the first step on.

    Args:
        console: where to draw.
        hidden: draw nothing.
    """

    def __init__(self, console: Console, *, hidden: bool = False) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
            disable=hidden,
        )
        self._bars: dict[str, BarID] = {}
        self._running = ""
        self._waits_for = ""

    def __enter__(self) -> RunView:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bars:
            self._progress.stop()

    def on_event(self, event: dict[str, Any]) -> None:
        """Takes an event of the worker."""
        if event["event"] == "step":
            self._end_running()
            self._begin(event["step"])
        elif event["event"] == "progress" and event["step"] in self._bars:
            loss = event.get("metrics", {}).get("loss")
            note = "" if loss is None else f"loss {loss:.4f}"
            self._progress.update(self._bars[event["step"]], completed=event["done"], total=event["total"], note=note)
        elif event["event"] == "waiting" and event["words"] != self._waits_for:
            self._waits_for = event["words"]
            self._progress.console.print(self._waits_for)

    def finish(self) -> None:
        """Ticks off the last step."""
        self._end_running()

    def _begin(self, step: str) -> None:
        if not self._bars:
            self._progress.start()  # not before: an empty display leaves an empty line above an error
        words = _WORDS.get(step) or f"training, stage {step.removeprefix('train-')}"
        if step not in self._bars:
            self._bars[step] = self._progress.add_task(words, total=1, note="")
        self._running = step

    def _end_running(self) -> None:
        if self._running:
            bar = self._bars[self._running]
            total = self._progress.tasks[bar].total or 1
            self._progress.update(bar, completed=total, total=total)
        self._running = ""
