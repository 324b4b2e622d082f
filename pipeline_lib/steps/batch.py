"""A batch as it is written down: a row for each concept, read from its run's folder, a strip of stills, one page."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from pipeline_lib.errors import ArtifactError
from pipeline_lib.metrics.gate import gate_metrics
from pipeline_lib.records import Record
from pipeline_lib.report.batch import BatchLine, BatchPage, Figure
from pipeline_lib.steps.generate import load_samples
from pipeline_lib.steps.layout import SUMMARY_FILE
from pipeline_lib.steps.prepare import load_clips
from pipeline_lib.steps.run_folder import RunFolder, RunRecord, now
from pipeline_lib.steps.several_runs import SeveralRunsFolder, how_it_went, report_address
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.storage import ArtifactStore, disk_errors, write_atomic

STRIPS = "strips"
MOST_STILLS, STILL_HEIGHT = 6, 96
"""Pictures in a row's strip, the reference's first; their height in pixels."""


class Mean(Record):
    """A score of the personalised model: its mean over samples, its 95 % interval where there is one."""

    mean: float
    low: float | None = None
    high: float | None = None


class BatchRow(Record):
    """One concept of a batch, and what became of it.

    `scores` are those that the gate looks at. `found`: nothing had to be made. `reason` is why there is no result.
    """

    concept: str
    status: Literal["done", "failed", "stopped"]
    run_id: str = ""
    found: bool = False
    seconds: float = 0.0
    scores: dict[str, Mean] = Field(default_factory=dict)
    report: str = ""
    tracking: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    reason: str = ""


class BatchRecord(Record):
    """`batch.json`; `starts` counts how often the batch was started."""

    schema_version: int = 1
    batch_id: str
    name: str
    started: str
    seconds: float
    starts: int = 1
    rows: tuple[BatchRow, ...]

    @property
    def failed(self) -> tuple[BatchRow, ...]:
        """Concepts without a result."""
        return tuple(row for row in self.rows if row.status != "done")

    @property
    def told(self) -> str:
        """How it went, in one sentence."""
        found = sum(row.found for row in self.rows if row.status == "done")
        return how_it_went("concepts", len(self.rows), found, [row.concept for row in self.failed])


class BatchFolder(SeveralRunsFolder[BatchRecord]):
    """Where a batch is written down, with a strip of stills for each concept.

    Args:
        state: where runs live.
        name: for people; safe as a path.
        runs: what identifies each concept's run: equal runs give an equal folder.
    """

    kind = "batch"
    record_type = BatchRecord

    def __init__(self, state: StateFolder, name: str, runs: Sequence[str]) -> None:
        super().__init__(state, state.batches, name, runs)
        self.name = name

    def write(self, rows: Sequence[BatchRow], started: str, seconds: float) -> BatchRecord:
        """Writes record, strips and page.

        Args:
            rows: one for each concept.
            started: when, as :func:`~pipeline_lib.steps.run_folder.now` tells it.
            seconds: how long the batch took.

        Returns:
            The record.
        """
        former = self.record()
        record = BatchRecord(
            batch_id=self.identity,
            name=self.name,
            started=started,
            seconds=round(seconds, 3),
            starts=former.starts + 1 if former else 1,
            rows=tuple(rows),
        )
        with disk_errors(self.path, "the batch folder"):
            (self.path / STRIPS).mkdir(parents=True, exist_ok=True)
            page = BatchPage(
                title=record.name,
                created=datetime.fromisoformat(now()),
                seconds=seconds,
                verdict=record.told,
                lines=tuple(self._line(row, number) for number, row in enumerate(rows)),
            )
            self.put(record, page)
        return record

    def _line(self, row: BatchRow, number: int) -> BatchLine:
        links = []
        if row.report:
            links.append(("report", report_address(row.run_id, row.report)))
        if url := row.tracking.get("url", ""):
            links.append(("MLflow", url))
        return BatchLine(
            concept=row.concept,
            status=row.status,
            run_id=row.run_id,
            seconds=row.seconds,
            found=row.found,
            strip=self._strip(row, number),
            figures=tuple(Figure(name, one.mean, one.low, one.high) for name, one in row.scores.items()),
            links=tuple(links),
            notes=row.notes,
            reason=row.reason,
        )

    def _strip(self, row: BatchRow, number: int) -> Path | None:
        record = RunFolder(self.state, row.run_id).record() if row.status == "done" else None
        picture = strip(self.state.store, record) if record else None
        if picture is None:
            return None
        path = self.path / STRIPS / f"{number:03d}.png"
        write_atomic(path, picture)
        return path


def row_of(state: StateFolder, concept: str, run_id: str, seconds: float, reason: str = "") -> BatchRow:
    """What a run's folder says of a concept.

    Args:
        state: where runs live.
        concept: its name.
        run_id: of its run.
        seconds: that it took.
        reason: why its run failed; empty: it did not.

    Returns:
        The row.
    """
    folder = RunFolder(state, run_id)
    record = folder.record()
    if reason or record is None or record.status != "done":
        why = reason or (record.error if record else "") or "its run left nothing in this state folder"
        status: Literal["failed", "stopped"] = "stopped" if record and record.status == "stopped" else "failed"
        return BatchRow(concept=concept, status=status, run_id=run_id, seconds=seconds, reason=" ".join(why.split()))
    result = folder.result(record)
    return BatchRow(
        concept=concept,
        status="done",
        run_id=run_id,
        seconds=round(seconds, 3),
        scores=_scores(folder.path / SUMMARY_FILE),
        report=result.report,
        tracking=record.tracking,
        notes=record.notes,
    )


def strip(store: ArtifactStore, record: RunRecord) -> bytes | None:
    """A run in a row of stills: the middle of what was learned from, then of its samples.

    Args:
        store: holds the run's artifacts.
        record: of the run.

    Returns:
        A PNG; None where the artifacts are gone, or were made elsewhere.
    """
    try:
        clips = load_clips(store, record.steps["prepare"].ref)
        samples = load_samples(store, record.steps["generate-personalised"].ref)
    except (ArtifactError, KeyError):
        return None
    first = min(sample.seed for sample, _ in samples)
    videos = [clips[0].frames, *(frames for sample, frames in samples if sample.seed == first)]
    stills = [_still(frames) for frames in videos[:MOST_STILLS]]
    content = io.BytesIO()
    Image.fromarray(np.concatenate(stills, axis=1)).save(content, "PNG")
    return content.getvalue()


def _still(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = Image.fromarray(frames[len(frames) // 2])
    width = max(1, round(image.width * STILL_HEIGHT / image.height))
    return np.asarray(image.resize((width, STILL_HEIGHT), Image.Resampling.BICUBIC), np.uint8)


def _scores(path: Path) -> dict[str, Mean]:
    cells: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["rows"].get("personalised", {})
    measured = {name: cell for name, cell in cells.items() if cell["mean"] is not None}
    return {
        name: Mean(**{key: measured[name][key] for key in ("mean", "low", "high")}) for name in gate_metrics(measured)
    }
