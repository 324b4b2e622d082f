"""`batch`: many concepts with one command."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from flows.cli.output import put, put_table
from flows.cli.several_runs import SOME_FAILED, heard, put_record
from flows.concepts import chosen_concepts, concepts_in
from flows.environment import join_servers, prepare_environment
from pipeline_lib.errors import ConfigError
from pipeline_lib.run_config import RunConfig, anchored, load_config, with_settings
from pipeline_lib.steps.batch import BatchRecord
from pipeline_lib.steps.state import StateFolder


def batch_config(config: str, settings: Sequence[str]) -> RunConfig:
    """Base, method and training of a batch's runs.

    Args:
        config: a file; empty: the defaults.
        settings: `key=value`.

    Returns:
        The config, without inputs.

    Raises:
        InputError: something in it that no run can use.
    """
    from pipeline_lib.steps.check import check_service

    template = load_config(Path(config).expanduser()) if config else RunConfig()
    chosen = anchored(with_settings(template, settings), Path.cwd())
    check_service(chosen)
    return chosen


def run_batch(
    sources: Sequence[str], config: RunConfig, *, at_once: int = 1, deployment: str = "", as_json: bool = False
) -> int:
    """Runs a batch and prints what came of it.

    Args:
        sources: one folder of concepts, or the concepts themselves.
        config: of every run.
        at_once: runs at the same time.
        deployment: that runs them; empty: this process.
        as_json: print an object.

    Returns:
        0 where all are done, else 1.

    Raises:
        InputError: there is no such folder, or none of it is a concept.
    """
    paths = [Path(text).expanduser().absolute() for text in sources]
    folder = str(paths[0]) if len(paths) == 1 and paths[0].is_dir() else ""
    concepts = [] if folder else [str(path) for path in paths]
    chosen_concepts(concepts_in(paths[0]) if folder else paths, config)  # mistakes are told before anything starts
    state = StateFolder.open()
    state.make()  # Prefect, whose home is in it, makes no parents
    prepare_environment(state, quiet=True)
    if not join_servers(state) and deployment and not os.environ.get("PREFECT_API_URL"):
        raise ConfigError("there is no server with that deployment", fix="start one: mannerism up")
    started = time.monotonic()
    from flows.batch import batch

    result = heard(lambda: batch(folder, concepts, config, at_once, deployment, return_state=True))
    record = BatchRecord.model_validate(result)
    page = state.batches / record.batch_id / "batch.html"
    put_record(record, page, time.monotonic() - started, as_json=as_json)
    if not as_json:
        _put_rows(record)
    return SOME_FAILED if record.failed else 0


def _put_rows(record: BatchRecord) -> None:
    put()
    put_table(
        [
            {
                "concept": row.concept,
                "status": row.status,
                "seconds": f"{row.seconds:.0f}",
                **{name: f"{score.mean:.3f}" for name, score in row.scores.items()},
                "run": row.run_id or row.reason,
            }
            for row in sorted(record.rows, key=lambda row: -len(row.scores))  # the heads are the first row's
        ]
    )
