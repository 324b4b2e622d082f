"""Where several runs are written down together, as a batch or a comparison: a view of their own folders.

A folder below the state folder: a record for programs, a page for people, and the same page for another place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from pydantic import ValidationError

from pipeline_lib.records import Record
from pipeline_lib.report.several_runs import SeveralRunsPage
from pipeline_lib.run_config import digest
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.storage import write_atomic

Kept = TypeVar("Kept", bound=Record)


class SeveralRunsFolder(Generic[Kept]):
    """A folder of several runs.

    Args:
        state: where runs live.
        place: folder of all such folders.
        name: what the folder's own name begins with; safe as a path.
        runs: what identifies each run: equal runs give an equal folder.
    """

    kind: ClassVar[str]
    """What its files are called, e.g. `batch.json` and `batch.html`."""
    record_type: type[Kept]

    def __init__(self, state: StateFolder, place: Path, name: str, runs: Sequence[str]) -> None:
        self.state = state
        self.identity = f"{name}-{digest(sorted(runs))[:8]}"
        self.path = place / self.identity

    @property
    def page(self) -> Path:
        """The report."""
        return self.path / f"{self.kind}.html"

    @property
    def page_elsewhere(self) -> Path:
        """The report for another place, such as MLflow: without links to what lies beside it."""
        return self.path / "elsewhere" / self.page.name

    @property
    def record_file(self) -> Path:
        """The same for programs."""
        return self.path / f"{self.kind}.json"

    def record(self) -> Kept | None:
        """What was written last; None where there is nothing readable."""
        try:
            return self.record_type.model_validate_json(self.record_file.read_bytes())
        except (OSError, ValidationError):
            return None

    def put(self, record: Kept, page: SeveralRunsPage) -> None:
        """Writes record and pages; each file that is there is replaced in one go.

        Args:
            record: for programs.
            page: for people.

        Raises:
            ResourceError: the disk is full.
            InputError: a picture is missing or none; nothing is written then.
        """
        here, elsewhere = page.text(), page.elsewhere().text()
        self.page_elsewhere.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.record_file, record.model_dump_json(indent=1))
        write_atomic(self.page, here)
        write_atomic(self.page_elsewhere, elsewhere)


def report_address(run_id: str, report: str) -> str:
    """A run's report as the page of several runs links to it.

    Args:
        run_id: of the run.
        report: its path; only the file's name counts.

    Returns:
        The address, relative to the page.
    """
    return f"../../runs/{run_id}/{Path(report).name}"


def how_it_went(what: str, total: int, found: int, failed: Sequence[str], most: int | None = None) -> str:
    """E.g. `3 of 4 concepts done, 1 of them found; owl failed`.

    Args:
        what: runs are called here, in the plural.
        total: how many there are.
        found: for how many of those that are done nothing had to be made.
        failed: names of those without a result.
        most: so many of them are named; None: all.

    Returns:
        The sentence, without a full stop.
    """
    text = f"{total - len(failed)} of {total} {what} done" + (f", {found} of them found" if found else "")
    named = failed[:most]
    more = f" and {len(failed) - len(named)} more" if len(named) < len(failed) else ""
    return f"{text}; {', '.join(named)}{more} failed" if failed else text
