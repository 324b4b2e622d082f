"""The tracker seam: what a run tells the outside, whoever writes it down."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from pipeline_lib.errors import StopRequested
from pipeline_lib.records import ClipRecord

log = logging.getLogger(__name__)

DIGEST_TAG = "mannerism.digest"
FLOW_RUN_TAG = "prefect.flow_run"
RunStatus = Literal["FINISHED", "FAILED", "KILLED", "SCHEDULED"]  # the last: it waits for a person, and goes on
Metric = tuple[str, float, int]


def status_after(error: BaseException | None) -> RunStatus:
    """How a run ended that this came out of: killed where somebody stopped it, failed where something broke.

    Args:
        error: what ended it, None for its own end.

    Returns:
        The status to write down.
    """
    if error is None:
        return "FINISHED"
    return "KILLED" if isinstance(error, StopRequested) or not isinstance(error, Exception) else "FAILED"


class Tracker(Protocol):
    """One run, or one stage of it, being written down by one process.

    Every verb may be repeated after a resume: what is already there stays as it is and appears once.
    Names may come from users' files; the tracker makes them harmless.
    """

    @property
    def run_id(self) -> str:
        """The run's id; empty before `start_run` and where nothing is written down."""
        ...

    @property
    def url(self) -> str:
        """The address of the run's page; empty where no server shows it."""
        ...

    def find_run(self, digest: str) -> str:
        """The id of the latest run with this digest, open or ended; empty if there is none.

        A run in which everything was found in the store opens no new one: its page is this one.
        """
        ...

    def start_run(self, name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> str:
        """Opens a run, or goes on with the latest one that has the same `DIGEST_TAG`.

        Args:
            name: what people read.
            tags: `DIGEST_TAG` identifies what is done, `FLOW_RUN_TAG` who does it; others as wished.
            params: settings, nested as they are; flattened with dots, long values cut.

        Returns:
            The run's id.
        """
        ...

    def child(self, name: str, params: Mapping[str, Any] | None = None) -> Tracker:
        """The tracker of one stage of this run; opened, or gone on with."""
        ...

    def log_metrics(self, metrics: Sequence[Metric]) -> None:
        """Notes `(name, value, step)`; each step of a name once, the first value wins.

        Writes are gathered. After a stage, or a resume, send the stage's whole file of losses: what is
        there already is skipped, so no step is missing and none is twice.
        """
        ...

    def log_clip(self, clip: ClipRecord) -> None:
        """Notes the data the run learns from."""
        ...

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Copies a file, or a folder's contents, to the run's artifacts, below `folder`."""
        ...

    def log_image(self, path: Path, key: str, step: int) -> None:
        """Shows an image in the series `key` at a step."""
        ...

    def log_concept(
        self, folder: Path, name: str, kind: str, metrics: Mapping[str, float], *, register: bool, follows: str = ""
    ) -> str:
        """Keeps a LoRA folder as a model of its own.

        Args:
            folder: its files.
            name: the concept's name.
            kind: which stage it is of, or "concept".
            metrics: scores that belong to the model.
            register: also a new version of the registered model `name`, under the alias "candidate".
            follows: the uri of the model this one was trained from.

        Returns:
            The model's uri; empty where nothing is written down.
        """
        ...

    def link(self, runs: Sequence[str], tag: str, value: str) -> None:
        """Writes a tag on other runs, so that they are found from this one."""
        ...

    def end(self, status: RunStatus = "FINISHED") -> None:
        """Writes what is gathered and closes the run; where that failed or was stopped, its open stages, too."""
        ...


@contextmanager
def ended(tracker: Tracker) -> Iterator[None]:
    """Ends a tracker's run, if it has one by then, with what came of the block.

    Args:
        tracker: whose run is opened in the block.

    Yields:
        None: once.
    """
    try:
        yield
    except BaseException as error:
        if tracker.run_id:
            try:
                tracker.end(status_after(error))
            except Exception:  # must not hide what went wrong before
                log.exception("the run %s stays open", tracker.run_id)
        raise
    if tracker.run_id:
        tracker.end()
