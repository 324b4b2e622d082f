"""What servers show of several runs, of a batch or a comparison: a page of its own in MLflow, artifacts in Prefect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect.artifacts import create_link_artifact, create_table_artifact

from pipeline_lib.sections import TrackingSection
from pipeline_lib.tracking import DIGEST_TAG, NullTracker, Tracker, ended
from pipeline_lib.tracking.reaper import Reaper
from tasks.courtesy import courtesy
from tasks.show import plain

if TYPE_CHECKING:
    from pipeline_lib.steps.batch import BatchRow
    from pipeline_lib.steps.several_runs import SeveralRunsFolder


class Shown(NamedTuple):
    """What is shown of several runs.

    Attributes:
        told: how it went, in a sentence.
        figures: numbers by name.
        starts: how often it was started: the figures' step.
        files: for MLflow; those that are not there are left out.
        rows: of all runs; MLflow finds them by the name of the whole.
        table: for Prefect's page, a row each.
    """

    told: str
    figures: Mapping[str, float]
    starts: int
    files: Sequence[Path]
    rows: Sequence[BatchRow]
    table: list[dict[str, Any]]


@contextmanager
def own_page(
    folder: SeveralRunsFolder[Any], section: TrackingSection | None, name: str, told: Mapping[str, Any]
) -> Iterator[Tracker]:
    """A tracker whose run is opened before threads of the block import MLflow, and closed with what came of the block.

    Args:
        folder: where the runs are written down together.
        section: of one of the runs; None: nothing is written down.
        name: what people read.
        told: what is in it, as parameters.

    Yields:
        The tracker: once.
    """
    if section is None:
        yield NullTracker()
        return
    from pipeline_lib.tracking.mlflow_tracker import MlflowTracker

    state = folder.state
    tracker = MlflowTracker(state.mlflow_uri, section.experiment, state.mlflow_place)
    tracker.close_dangling()
    reaper: Reaper | None = None
    try:
        with ended(tracker):
            tracker.start_run(name, {DIGEST_TAG: folder.identity, _tag(folder): folder.identity}, told)
            reaper = Reaper(state.mlflow_uri, section.experiment)
            yield tracker
    finally:
        if reaper is not None:
            reaper.dismiss()


def publish(folder: SeveralRunsFolder[Any], tracker: Tracker, shown: Shown) -> None:
    """Figures and files to MLflow, the name of the whole to its runs there, and what Prefect's page shows.

    Args:
        folder: where the runs are written down together.
        tracker: of :func:`own_page`.
        shown: what is shown.
    """
    tracker.log_metrics([(name, float(value), shown.starts) for name, value in shown.figures.items()])
    for path in shown.files:
        if path.is_file():
            tracker.log_artifact(path)
    tracker.link([row.tracking["run"] for row in shown.rows if "run" in row.tracking], _tag(folder), folder.identity)
    page = f"{tracker.url}/artifacts/{folder.page.name}" if tracker.url else folder.page.as_uri()
    with courtesy(folder.identity):
        create_table_artifact(shown.table, key=folder.kind, description=plain(shown.told))
        create_link_artifact(page, link_text=folder.identity, key=f"{folder.kind}-report")


def _tag(folder: SeveralRunsFolder[Any]) -> str:
    return f"mannerism.{folder.kind}"
