"""A page in MLflow for what is more than one run: a batch, a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline_lib.sections import TrackingSection
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.tracking import NullTracker, Tracker, ended
from pipeline_lib.tracking.reaper import Reaper


@contextmanager
def own_page(
    state: StateFolder, section: TrackingSection | None, name: str, tags: Mapping[str, str], told: Mapping[str, Any]
) -> Iterator[Tracker]:
    """A tracker whose run is opened before threads of the block import MLflow, and closed with what came of the block.

    Args:
        state: tells where runs are written down.
        section: of one of the runs; None: nothing is written down.
        name: what people read.
        tags: the digest tag among them.
        told: what is in it, as parameters.

    Yields:
        The tracker: once.
    """
    if section is None:
        yield NullTracker()
        return
    from pipeline_lib.tracking.mlflow_tracker import MlflowTracker

    tracker = MlflowTracker(state.mlflow_uri, section.experiment, state.mlflow_place)
    tracker.close_dangling()
    reaper: Reaper | None = None
    try:
        with ended(tracker):
            tracker.start_run(name, tags, told)
            reaper = Reaper(state.mlflow_uri, section.experiment)
            yield tracker
    finally:
        if reaper is not None:
            reaper.dismiss()
