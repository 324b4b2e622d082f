"""Compare: methods on concepts, each cell a run of its own; tables, orderings and pages over all."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.batch import run_configs
from flows.compare_plan import Plan, creatures, plan
from flows.concepts import Chosen
from flows.own_page import Shown, own_page, publish
from pipeline_lib.compare.concepts import creature_files
from pipeline_lib.errors import ConfigError, InputError
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.run_folder import now, run_identity
from pipeline_lib.steps.state import StateFolder
from tasks.show import plain

if TYPE_CHECKING:
    from pipeline_lib.compare.cells import Cell
    from pipeline_lib.compare.folder import CompareFolder, CompareRecord
    from pipeline_lib.steps.batch import BatchRecord

CELLS = "compared cells"
"""Name of the batch of all cells; not the comparison's own, or the two would share a page in MLflow."""


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
        gizmos: of the pocket world, with commas: `reporting`, `tuning`, `all` (both), `confirmation`, `pairs` (two
            gizmos in one clip), `pairs-tuning`, numbers of gizmos, and pairs such as `pair:2`; empty: `reporting`
            (`tuning` for ablations), and none where `concepts` are named.
        concepts: clips and folders, as a batch takes them; no truth is known of them.
        ablations: Set-and-Sequence with single settings changed.
        config: base, preset, sampling seeds and training of every run; its `method.settings` hold for those entries
            whose method has them.
        at_once: runs at the same time.

    Returns:
        The comparison's record, in a state that tells how many cells failed.

    Raises:
        InputError: an unknown method, gizmo, pair or setting, or something that is no concept.
    """
    if at_once < 1:
        raise ConfigError("at_once", got=str(at_once), expected="at least 1")
    started, clock, state = now(), time.monotonic(), StateFolder.open()
    planned = plan(methods, gizmos, concepts, config, ablations=ablations)
    for creature in creatures(gizmos, concepts, ablations=ablations):
        creature_files(creature, state.gizmos)
    batch = run_configs([cell.run for cell in planned.cells], name=CELLS, at_once=at_once)
    record = _written(planned, batch, config, (started, clock))
    ended = Failed if record.missing else Completed
    return ended(message=record.told, data=record.model_dump(mode="json"))


def _written(planned: Plan, batch: BatchRecord, config: RunConfig, begun: tuple[str, float]) -> CompareRecord:
    """Writes record and pages, and publishes them."""
    from pipeline_lib.compare.folder import Compared, CompareFolder  # seconds: not for those who only look at the flow

    cells = _cells(planned, batch)
    folder = CompareFolder(StateFolder.open(), [cell.run_id or f"{cell.entry} {cell.concept}" for cell in cells])
    what = Compared(
        entries=tuple(planned.entries), concepts=planned.concepts, template=config, notes=tuple(planned.notes)
    )
    told = {"methods": [entry.label for entry in planned.entries], "concepts": list(planned.concepts)}
    section = config.tracking if config.tracking.mlflow else None
    with own_page(folder, section, folder.identity, told) as tracker:
        record = folder.write(cells, what, begun[0], time.monotonic() - begun[1])
        publish(folder, tracker, _shown(record, folder, batch))
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


def _shown(record: CompareRecord, folder: CompareFolder, batch: BatchRecord) -> Shown:
    from pipeline_lib.compare.folder import figures

    means = {"done": len(record.cells) - len(record.missing), "seconds": record.seconds, **figures(record.scores)}
    table = [
        {"method": plain(row), **{name: round(mean.mean, 4) for name, mean in means.items()}}
        for row, means in record.scores.tables["edits"].items()
    ]
    files = (folder.page_elsewhere, folder.record_file, folder.scores_file, folder.blind)
    return Shown(record.told, means, record.starts, files, batch.rows, table)
