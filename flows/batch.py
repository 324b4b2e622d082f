"""A batch: many concepts, each a run of its own; what fails does not stop the others; one report over all."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from flows.concepts import Chosen, chosen_concepts, concepts_in
from flows.many_runs import Ended, Job, run_here, run_on_workers
from flows.own_page import Shown, own_page, publish
from pipeline_lib.errors import ConfigError, InputError
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.run_folder import now, run_identity
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.tracking import Tracker
from tasks.show import plain

if TYPE_CHECKING:
    from pipeline_lib.steps.batch import BatchFolder, BatchRecord, BatchRow

listener: ContextVar[Callable[[str], None] | None] = ContextVar("batch listener", default=None)
"""Told a sentence about each concept that has ended, where there is one; the flow run's log always is."""


@flow(name="batch", persist_result=False, result_serializer="json")
def batch(
    folder: str = "",
    concepts: list[str] = [],  # noqa: B006 - the form's default
    config: RunConfig = RunConfig(),  # noqa: B008 - frozen
    at_once: int = 1,
    deployment: str = "",
) -> State[dict[str, Any]]:
    """Teaches many concepts; ends well when all did.

    Args:
        folder: its clips and its folders are concepts; empty, and no `concepts` either: `concepts` in the state folder.
        concepts: further ones: clips, and folders of clips or images, perhaps with a `concept.yaml`.
        config: base, method and training of every run.
        at_once: runs at the same time; those that train on one GPU take turns.
        deployment: runs them on workers, e.g. `personalize/set-and-sequence-pocket`; empty: in this process.

    Returns:
        The batch's record, in a state that tells how many failed.

    Raises:
        InputError: there is no such folder, or none of it is a concept.
    """
    if at_once < 1:
        raise ConfigError("at_once", got=str(at_once), expected="at least 1")
    paths, name = _paths(folder, concepts)
    record = run_configs(chosen_concepts(paths, config), name=name, at_once=at_once, deployment=deployment)
    state = Failed if record.failed else Completed
    return state(message=record.told, data=record.model_dump(mode="json"))


def run_configs(
    chosen: Sequence[Chosen], *, name: str = "batch", at_once: int = 1, deployment: str = ""
) -> BatchRecord:
    """Runs configs, each a flow run of its own, and writes the report. For use inside a flow.

    Args:
        chosen: what to run.
        name: of the batch.
        at_once: runs at the same time.
        deployment: that runs them; empty: this process.

    Returns:
        A row for each, in order; equal runs count once.
    """
    from pipeline_lib.steps.batch import BatchFolder, row_of  # seconds: not for those who only look at the flow

    state, started, clock = StateFolder.open(), now(), time.monotonic()
    state.make()
    rows: dict[int, BatchRow] = {}

    def on_end(job: Job, end: Ended) -> None:
        row = row_of(state, job.name, job.run_id, end.seconds, end.reason)
        rows[job.number] = row.model_copy(update={"found": end.found and not row.reason})
        _tell(_sentence(rows[job.number]))

    wanted: dict[str, Job] = {}  # equal runs, as of one clip given twice, would wait for each other
    for number, one in enumerate(chosen):
        job = _job(number, one)
        if isinstance(job, Job):
            wanted.setdefault(job.run_id, job)
        else:
            rows[number] = job
            _tell(_sentence(job))
    jobs = list(wanted.values())
    identities = [*wanted] + [f"{row.concept}: {row.reason}" for row in rows.values()]
    folder = BatchFolder(state, re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "batch", identities)
    with _tracked(folder, chosen) as tracker:
        run = partial(run_on_workers, deployment=deployment) if deployment else run_here
        try:
            run(jobs, at_once, on_end)
        finally:  # a batch that is stopped late has much to show
            rows |= {job.number: _unfinished(state, job) for job in jobs if job.number not in rows}
            record = folder.write([rows[number] for number in sorted(rows)], started, time.monotonic() - clock)
        publish(folder, tracker, _shown(record, folder))
    return record


def _paths(folder: str, concepts: Sequence[str]) -> tuple[list[Path], str]:
    """The concepts that are meant, and what the batch is called."""
    listed = [Path(text) for text in concepts]
    if folder or not concepts:
        place = Path(folder).expanduser() if folder else StateFolder.open().concepts
        if not folder and not (place.is_dir() and any(place.iterdir())):
            return [], place.name  # a nightly batch before its first concept: no mistake
        return [*concepts_in(place), *listed], place.resolve().name
    return listed, "batch"


def _job(number: int, one: Chosen) -> Job | BatchRow:
    """The run of a concept; its row at once where there can be none."""
    from pipeline_lib.steps.batch import BatchRow

    if one.config is None:
        return BatchRow(concept=one.name, status="failed", reason=one.problem)
    try:
        return Job(number, one.name, one.config, run_identity(one.config))
    except InputError as error:
        return BatchRow(concept=one.name, status="failed", reason=str(error))


def _unfinished(state: StateFolder, job: Job) -> BatchRow:
    """The row of a run that the batch's own end came before."""
    from pipeline_lib.steps.batch import row_of

    row = row_of(state, job.name, job.run_id, 0.0)
    if row.status == "done":  # in an earlier batch
        return row.model_copy(update={"found": True})
    return row.model_copy(update={"status": "stopped", "reason": "the batch was stopped before this had ended"})


def _sentence(row: BatchRow) -> str:
    if row.status != "done":
        return f"{row.concept}: {row.status}: {row.reason}"
    return f"{row.concept}: found" if row.found else f"{row.concept}: done in {row.seconds:.0f} s"


def _tell(text: str) -> None:
    get_run_logger().info(text)
    if (tell := listener.get()) is not None:
        tell(text)


def _tracked(folder: BatchFolder, chosen: Sequence[Chosen]) -> AbstractContextManager[Tracker]:
    """The batch's own page in MLflow; nowhere where no run is tracked."""
    sections = [one.config.tracking for one in chosen if one.config is not None and one.config.tracking.mlflow]
    told = {"concepts": [one.name for one in chosen]}
    return own_page(folder, sections[0] if sections else None, f"batch {folder.name}", told)


def _shown(record: BatchRecord, folder: BatchFolder) -> Shown:
    figures = {"done": len(record.rows) - len(record.failed), "failed": len(record.failed), "seconds": record.seconds}
    table = [
        {
            "concept": plain(row.concept),
            "status": row.status,
            "seconds": row.seconds,
            **{name: round(score.mean, 4) for name, score in row.scores.items()},
            "run": row.run_id,
            "reason": plain(row.reason),
        }
        for row in record.rows
    ]
    files = (folder.page_elsewhere, folder.record_file)
    return Shown(record.told, figures, record.starts, files, record.rows, table)
