"""What we started ends with us, even when we are killed: a guard process waits for our death.

Prefect stops its ephemeral server when the interpreter exits, which a SIGKILL or the out-of-memory killer skips;
the server would then live on for ever. So would everything that `mannerism up` had started.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipeline_lib.processes.grace import RUN_SECONDS

MARK = "MANNERISM_PARENT"
FLOW_RUN = "prefect.engine"
SERVER = "prefect.server.api.server:create_app"
EVERYTHING = "everything"
_PATIENCE = 20.0


@contextmanager
def guarded(*, everything: bool = False) -> Iterator[None]:
    """While inside, a guard watches this process; children started inside carry its mark.

    Args:
        everything: the guard ends all that carry the mark, not Prefect's server alone (a worker child ends itself,
            with a checkpoint, when its parent is gone).
    """
    os.environ[MARK] = str(os.getpid())
    guard = subprocess.Popen(
        [sys.executable, "-m", "flows.guard", str(os.getpid()), *([EVERYTHING] if everything else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if name != MARK},
        start_new_session=True,  # Ctrl-C in the terminal is not for the guard
    )
    try:
        yield
    finally:
        # Prefect stops its server itself at exit; the guard stays until then, and finds nothing to do.
        del os.environ[MARK]
        _kept.append(guard)


_kept: list[subprocess.Popen[bytes]] = []  # their pipes must stay open as long as we live


def end_children(parent: str, *, everything: bool = False) -> int:
    """Ends what a dead process left behind; what does not go is killed.

    Args:
        parent: process id of that process, as its children carry it.
        everything: not Prefect's servers alone.

    Returns:
        How many there were.
    """
    if not everything:
        return _end(parent, SERVER, _PATIENCE)
    return end_runs(parent) + _end(parent, "", _PATIENCE)


def end_runs(parent: str) -> int:
    """Ends the flow runs below a process, while their worker lives, which would kill them, and servers take their end.

    Args:
        parent: process id of that process, as its children carry it.

    Returns:
        How many there were.
    """
    return _end(parent, FLOW_RUN, RUN_SECONDS)


def _end(parent: str, word: str, patience: float) -> int:
    """Ends those with a word in their command line, or all."""
    import psutil

    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if (not word or word in process.cmdline()) and process.environ().get(MARK) == parent:
                process.terminate()
                left.append(process)
    _, stubborn = psutil.wait_procs(left, timeout=patience)
    for process in stubborn:
        with suppress(psutil.Error):
            process.kill()
    return len(left)


if __name__ == "__main__":
    sys.stdin.read()  # ends when the parent does
    end_children(sys.argv[1], everything=EVERYTHING in sys.argv)
