"""Cells of a comparison: an entry on a concept, each a run; what of it counts, read from the run's artifacts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal

from pipeline_lib.errors import ArtifactError
from pipeline_lib.metrics.aggregate import ScoredSample
from pipeline_lib.records import Record
from pipeline_lib.steps.batch import BatchRow
from pipeline_lib.steps.evaluate import load_scores
from pipeline_lib.steps.run_folder import RunFolder, RunRecord
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.storage import ArtifactStore


class Cell(Record):
    """One entry on one concept.

    `seconds`: that this comparison took for it. `trained_seconds`: that its training took when it was made; of a stage
    that was stopped in between only what came after. `threads`: that its stages were trained with, in ascending order,
    and of one that went on under another number the last; empty where that is not known. Numbers are equal to the last
    digit on one kind of processor with equal threads alone.
    """

    entry: str
    concept: str
    status: Literal["done", "failed", "stopped"]
    run_id: str = ""
    found: bool = False
    seconds: float = 0.0
    trained_seconds: float = 0.0
    threads: tuple[int, ...] = ()
    report: str = ""
    reason: str = ""


def cell_of(state: StateFolder, entry: str, concept: str, row: BatchRow) -> Cell:
    """A cell from its run's row in the batch.

    Args:
        state: where runs live.
        entry: label of its entry.
        concept: its concept.
        row: what became of the run.

    Returns:
        The cell.
    """
    record = run_record(state, row.run_id) if row.status == "done" else None
    trained = list(_training_notes(state.store, record)) if record else []
    return Cell(
        entry=entry,
        concept=concept,
        status=row.status,
        run_id=row.run_id,
        found=row.found,
        seconds=row.seconds,
        trained_seconds=round(sum(float(note.get("seconds", 0.0)) for note in trained), 3),
        threads=tuple(sorted({int(note["threads"]) for note in trained if "threads" in note})),
        report=row.report,
        reason=row.reason,
    )


def compared_samples(state: StateFolder, cells: Iterable[Cell]) -> list[ScoredSample]:
    """The scored samples of all cells that are done, with the entry as their row.

    Base, ceiling and chance are the same whatever was trained on a concept: they come once, with its first cell.

    Args:
        state: where runs live.
        cells: of a comparison.

    Returns:
        The samples, in order of the cells.
    """
    store, beside = state.store, set[str]()
    samples = []
    for cell in cells:
        record = run_record(state, cell.run_id) if cell.status == "done" else None
        if record is None:
            continue
        for sample in load_scores(store, record.steps["evaluate"].ref):
            own = sample.row == "personalised"
            if own or cell.concept not in beside:
                row = cell.entry if own else sample.row
                samples.append(sample.model_copy(update={"row": row, "concept": cell.concept}))
        beside.add(cell.concept)
    return samples


def run_record(state: StateFolder, run_id: str) -> RunRecord | None:
    """What is written down of a run; None where nothing readable is."""
    return RunFolder(state, run_id).record() if run_id else None


def models_used(state: StateFolder, cells: Sequence[Cell], samples: Sequence[ScoredSample]) -> dict[str, str]:
    """Weights and code that the numbers rest on: base, and each encoder and judge that scored.

    Args:
        state: where runs live.
        cells: of a comparison.
        samples: their scores.

    Returns:
        Digests by what they are of.
    """
    records = [record for cell in cells if (record := run_record(state, cell.run_id)) and record.plan]
    bases = {f"{record.plan.base} {record.plan.base_digest}" for record in records if record.plan}
    scored = {
        (score.encoder, score.encoder_digest)
        for sample in samples
        for score in sample.scores
        if score.encoder and score.value is not None
    }
    versions = {record.version for record in records}
    return {
        "base": ", ".join(sorted(bases)),
        **dict(sorted(scored)),
        "code version": ", ".join(sorted(versions)),
    }


def _training_notes(store: ArtifactStore, record: RunRecord) -> Iterator[dict[str, Any]]:
    """What is noted beside each of a run's trained stages, but for those that were pruned."""
    for name, step in record.steps.items():
        if name.startswith("train-"):
            with suppress(ArtifactError):
                yield store.get(step.ref).manifest.notes
