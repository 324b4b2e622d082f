"""What commands over several runs share, `batch` and `compare`: they are heard while they run, and told at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.output import console, put, put_json
from flows.guard import guarded

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from pipeline_lib.compare.folder import CompareRecord
    from pipeline_lib.steps.batch import BatchRecord

SOME_FAILED = 1
"""Exit code where some of the runs have no result."""


def heard(call: Callable[[], State[Any]]) -> Any:
    """Calls a flow of several runs; the console shows a sentence about each that has ended.

    Args:
        call: of the flow, with `return_state`.

    Returns:
        What the flow returned, also where it says that some of its runs failed.
    """
    with guarded():
        from flows.batch import listener

        token = listener.set(lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True))
        try:
            ended = call()
        finally:
            listener.reset(token)
    result = ended.result(raise_on_failure=False)
    if isinstance(result, BaseException):
        raise result  # what ended the whole
    return result


def put_record(record: BatchRecord | CompareRecord, page: Path, wall: float, *, as_json: bool) -> None:
    """Prints a record: all of it as an object, or how it went and where its page is.

    Args:
        record: of several runs.
        page: the report.
        wall: seconds since the command began.
        as_json: print an object.
    """
    if as_json:
        put_json({**record.model_dump(mode="json"), "report": str(page), "wall_seconds": round(wall, 2)})
    else:
        put(f"{page.parent.name}: {record.told}, in {wall:.0f} s")
        put(f"  report   {page}")
