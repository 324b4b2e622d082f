"""Compare: methods on concepts, each cell a run of its own; tables, orderings and pages over all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect import flow
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.batch import run_configs
from flows.concepts import Chosen, chosen_concepts
from flows.own_page import own_page
from pipeline_lib.compare.concepts import chosen_gizmos, gizmo_config, gizmo_files, gizmo_pace
from pipeline_lib.compare.entries import Entry, check_shared_settings, chosen_entries, differing, entry_config
from pipeline_lib.errors import ConfigError, InputError
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.run_folder import now, run_identity
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.tracking import DIGEST_TAG, Tracker
from tasks.courtesy import courtesy
from tasks.show import plain

if TYPE_CHECKING:
    from pipeline_lib.compare.cells import Cell
    from pipeline_lib.compare.folder import CompareFolder, CompareRecord
    from pipeline_lib.steps.batch import BatchRecord

COMPARE_TAG = "mannerism.compare"
CELLS = "compared cells"
"""Name of the batch of all cells; not the comparison's own, or the two would share a page in MLflow."""


class Wanted(NamedTuple):
    """A cell that is wanted: an entry, a concept, and the run of both."""

    entry: str
    concept: str
    run: Chosen


class Plan(NamedTuple):
    """What is compared: the entries, how each concept moves (empty where that is not known), and all cells."""

    entries: list[Entry]
    concepts: dict[str, str]
    cells: list[Wanted]
    notes: list[str]


@flow(name="compare", persist_result=False, result_serializer="json")
def compare(
    methods: list[str] = [],  # noqa: B006 - the form's default
    gizmos: str = "",
    concepts: list[str] = [],  # noqa: B006
    ablations: bool = False,
    config: RunConfig = RunConfig(),  # noqa: B008 - frozen
    at_once: int = 1,
) -> State[dict[str, Any]]:
    """Compares methods; ends well when every cell is done.

    Args:
        methods: labels of entries, or names of methods; empty: the core.
        gizmos: of the pocket world: `reporting`, `tuning`, `all`, or numbers with commas; empty: `reporting` (`tuning`
            for ablations), and none where `concepts` are named.
        concepts: clips and folders, as a batch takes them; no truth is known of them.
        ablations: Set-and-Sequence with single settings changed.
        config: base, preset, sampling seeds and training of every run; its `method.settings` hold for those entries
            whose method has them.
        at_once: runs at the same time.

    Returns:
        The comparison's record, in a state that tells how many cells failed.

    Raises:
        InputError: an unknown method, gizmo or setting, or something that is no concept.
    """
    if at_once < 1:
        raise ConfigError("at_once", got=str(at_once), expected="at least 1")
    started, clock, state = now(), time.monotonic(), StateFolder.open()
    planned = plan(methods, gizmos, concepts, config, ablations=ablations)
    for index in _indices(gizmos, concepts, ablations=ablations):
        gizmo_files(index, state.gizmos)
    batch = run_configs([cell.run for cell in planned.cells], name=CELLS, at_once=at_once)
    record = _written(planned, batch, config, (started, clock))
    ended = Failed if record.missing else Completed
    return ended(message=record.told, data=record.model_dump(mode="json"))


def plan(
    methods: Sequence[str], gizmos: str, concepts: Sequence[str], config: RunConfig, *, ablations: bool = False
) -> Plan:
    """What a comparison would run; nothing is written.

    Args:
        methods: as for :func:`compare`.
        gizmos: likewise.
        concepts: likewise.
        config: likewise.
        ablations: likewise.

    Returns:
        Entries, concepts and cells, by entry, then by concept.

    Raises:
        InputError: as :func:`compare` raises it.
    """
    # Versions of one concept by several methods are no candidates for its champion.
    tracking = config.tracking.model_copy(update={"register_model": False})
    template = config.model_copy(update={"tracking": tracking})
    entries = chosen_entries(methods, ablations=ablations)
    check_shared_settings(entries, template)
    entries, notes = differing(entries, template)
    folder = StateFolder.open().gizmos
    cells, moves = list[Wanted](), dict[str, str]()
    for entry in entries:
        own = entry_config(entry, template)
        made = [(gizmo_config(index, folder, own), index) for index in _indices(gizmos, concepts, ablations=ablations)]
        for run, index in made:
            moves[run.concept_name] = gizmo_pace(index)
            cells.append(_wanted(entry, run.concept_name, run))
        given = [_of_comparison(one, own) for one in chosen_concepts([Path(text) for text in concepts], own)]
        names = _told_apart([one.name for one in given], [run.concept_name for run, _ in made])
        for name, one in zip(names, given, strict=True):
            moves.setdefault(name, "")
            cells.append(_wanted(entry, name, one.config, one.problem))
    return Plan(entries, moves, cells, notes)


def _indices(gizmos: str, concepts: Sequence[str], *, ablations: bool) -> tuple[int, ...]:
    if not gizmos and concepts:
        return ()
    return chosen_gizmos(gizmos or ("tuning" if ablations else "reporting"))


def _wanted(entry: Entry, concept: str, config: RunConfig | None, problem: str = "") -> Wanted:
    return Wanted(entry.label, concept, Chosen(f"{concept} by {entry.label}", config, problem))


def _of_comparison(one: Chosen, template: RunConfig) -> Chosen:
    """A concept may say what it is; method, seeds and preset are the comparison's."""
    if one.config is None:
        return one
    samples = one.config.samples.model_copy(update={"seeds": template.samples.seeds})
    same = {"method": template.method, "seed": template.seed, "samples": samples}
    return Chosen(one.name, one.config.model_copy(update=same))


def _told_apart(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Concepts of one name numbered, since a name is what pairs samples of methods."""
    told = list[str]()
    for name in names:
        numbered = (f"{name} ({number})" for number in count(2))
        told.append(next(free for free in chain([name], numbered) if free not in {*taken, *told}))
    return told


def _written(planned: Plan, batch: BatchRecord, config: RunConfig, begun: tuple[str, float]) -> CompareRecord:
    """Writes record and pages, and publishes them."""
    from pipeline_lib.compare.folder import Compared, CompareFolder  # seconds: not for those who only look at the flow

    cells = _cells(planned, batch)
    folder = CompareFolder(StateFolder.open(), [cell.run_id or f"{cell.entry} {cell.concept}" for cell in cells])
    what = Compared(
        entries=tuple(planned.entries), concepts=planned.concepts, template=config, notes=tuple(planned.notes)
    )
    tags = {DIGEST_TAG: folder.compare_id, COMPARE_TAG: folder.compare_id}
    told = {"methods": [entry.label for entry in planned.entries], "concepts": list(planned.concepts)}
    section = config.tracking if config.tracking.mlflow else None
    with own_page(folder.state, section, folder.compare_id, tags, told) as tracker:
        record = folder.write(cells, what, begun[0], time.monotonic() - begun[1])
        _publish(record, folder, batch, tracker)
    return record


def _cells(planned: Plan, batch: BatchRecord) -> list[Cell]:
    """What became of each cell; cells of one and the same run share its row."""
    from pipeline_lib.compare.cells import cell_of
    from pipeline_lib.steps.batch import BatchRow

    state = StateFolder.open()
    rows = {row.run_id: row for row in batch.rows if row.run_id} | {row.concept: row for row in batch.rows}
    lost = BatchRow(concept="", status="failed", reason="the batch tells nothing of it")
    return [
        cell_of(state, cell.entry, cell.concept, rows.get(_identity(cell.run), rows.get(cell.run.name, lost)))
        for cell in planned.cells
    ]


def _identity(run: Chosen) -> str:
    try:
        return run_identity(run.config) if run.config else ""
    except InputError:
        return ""


def _publish(record: CompareRecord, folder: CompareFolder, batch: BatchRecord, tracker: Tracker) -> None:
    """Pages and means to MLflow, the comparison's name to its runs there, and what Prefect's page shows."""
    from pipeline_lib.compare.folder import figures

    means = {"done": len(record.cells) - len(record.missing), "seconds": record.seconds, **figures(record.scores)}
    tracker.log_metrics([(name, float(value), record.starts) for name, value in means.items()])
    for path in (folder.page_elsewhere, folder.record_file, folder.blind):
        if path.is_file():
            tracker.log_artifact(path)
    tracker.link([row.tracking["run"] for row in batch.rows if "run" in row.tracking], COMPARE_TAG, record.compare_id)
    table = [
        {"method": plain(row), **{name: round(mean.mean, 4) for name, mean in means.items()}}
        for row, means in record.scores.tables["edits"].items()
    ]
    page = f"{tracker.url}/artifacts/{folder.page.name}" if tracker.url else folder.page.as_uri()
    with courtesy("the comparison"):
        create_table_artifact(table, key="compare", description=plain(record.told))
        create_link_artifact(page, link_text=record.compare_id, key="compare-report")
