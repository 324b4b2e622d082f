"""How a command ends: one clear line on standard error, an exit code, a traceback in a file."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.errors import PipelineError, StopRequested

if TYPE_CHECKING:
    import typer

INTERRUPTED = 130


def ended(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Runs a command.

    Args:
        app: the command line.
        arguments: without the program's name.

    Returns:
        0 done, 2 bad input, 1 our fault or the machine's, 130 stopped by Ctrl-C.
    """
    try:
        code = app(list(arguments), standalone_mode=False)
    except (KeyboardInterrupt, StopRequested):
        return _told("stopped; run the same command again to go on", INTERRUPTED, arguments)
    except PipelineError as error:
        log = "" if error.exit_code == 2 else _logged(error)
        return _told(f"{error}{log}", error.exit_code, arguments)
    except Exception as error:
        if (show := getattr(error, "show", None)) is not None:  # a usage error: typer's own, whose home moves
            show()
            return 2
        return _told(f"{type(error).__name__}: {error}{_logged(error)}", 1, arguments)
    return code if isinstance(code, int) else 0


def _told(text: str, code: int, arguments: Sequence[str]) -> int:
    line = " ".join(text.split())
    sys.stderr.write(f"error: {line}\n")
    if "--json" in arguments:
        sys.stdout.write(json.dumps({"error": line, "exit_code": code}) + "\n")
    return code


def _logged(error: BaseException) -> str:
    """Writes the traceback to a file; returns the words that name it."""
    from pipeline_lib.steps.state import StateFolder

    try:
        path: Path = StateFolder.open().logs / f"error-{datetime.now():%Y%m%d-%H%M%S}.log"
        path.write_text("".join(traceback.format_exception(error)))
    except (OSError, PipelineError):
        sys.stderr.write("".join(traceback.format_exception(error)))  # nowhere else to put it
        return ""
    return f"; details in {path}"
