"""How a command ends: one clear line on standard error, an exit code, a traceback in a file."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_lib.errors import PipelineError, ResourceError, StopRequested

if TYPE_CHECKING:
    import typer

INTERRUPTED = 130
STOPPED = "stopped; run the same command again to go on"
LEAST_BYTES_FREE = 1_000_000


def ended(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Runs a command.

    Args:
        app: the command line.
        arguments: without the program's name.

    Returns:
        0 done, 2 bad input, 1 our fault or the machine's, 130 stopped by Ctrl-C.
    """
    try:
        code = app(list(arguments), standalone_mode=False, prog_name="mannerism")
    except (KeyboardInterrupt, StopRequested):
        return _told(STOPPED, INTERRUPTED, arguments)
    except Exception as error:
        if hasattr(error, "show"):  # a usage error: typer's own, whose home moves
            return _misused(error, arguments)
        return _explained(error, arguments)
    if code == INTERRUPTED:  # typer's answer to Ctrl-C
        return _told(STOPPED, INTERRUPTED, arguments)
    return code if isinstance(code, int) else 0


def _misused(error: Any, arguments: Sequence[str]) -> int:
    """A command line that cannot be read: one line as for all else; the bare command shows its help."""
    if not arguments or error.ctx is None:
        error.show()
        return 2
    return _told(f"{error.format_message().rstrip('.')} (see {error.ctx.command_path} --help)", 2, arguments)


def _explained(error: Exception, arguments: Sequence[str]) -> int:
    known = _ours(error) or _disk_full()
    if isinstance(known, StopRequested):
        return _told(STOPPED, INTERRUPTED, arguments)
    if known is None:
        return _told(f"{type(error).__name__}: {error}{_logged(error)}", 1, arguments)
    return _told(f"{known}{'' if known.exit_code == 2 else _logged(error)}", known.exit_code, arguments)


def _ours(error: BaseException | None) -> PipelineError | None:
    """The first error of our own in the chain: on a full disk, say, Prefect and MLflow fail after us."""
    while error is not None and not isinstance(error, PipelineError):
        error = error.__cause__ or error.__context__
    return error


def _disk_full() -> PipelineError | None:
    """A full disk, which Prefect's server and MLflow's database tell each in their own words."""
    from pipeline_lib.steps.state import StateFolder

    try:
        root = StateFolder.open().root
        free = shutil.disk_usage(root).free
    except (OSError, PipelineError):
        return None
    if free > LEAST_BYTES_FREE:
        return None
    return ResourceError(f"disk full: {root} has {free} bytes left; free space there, then run again")


def _told(text: str, code: int, arguments: Sequence[str]) -> int:
    line = " ".join(text.split())
    sys.stderr.write(f"error: {line}\n")
    if "--json" in arguments:
        sys.stdout.write(json.dumps({"error": line, "exit_code": code}) + "\n")
    return code


def _logged(error: BaseException) -> str:
    """Writes the traceback to a file, elsewhere where the state folder is full; returns words that name it."""
    from pipeline_lib.steps.state import StateFolder

    name = f"error-{datetime.now():%Y%m%d-%H%M%S}.log"
    folders = [Path(tempfile.gettempdir())]
    with suppress(PipelineError, OSError):
        state = StateFolder.open()
        state.make()
        folders.insert(0, state.logs)
    for folder in folders:
        try:
            (folder / name).write_text("".join(traceback.format_exception(error)))
        except OSError:
            (folder / name).unlink(missing_ok=True)
            continue
        return f"; details in {folder / name}"
    return ""
