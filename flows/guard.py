"""Prefect's ephemeral server ends with us, even when we are killed: a guard process waits for our death.

Prefect stops its server when the interpreter exits, which a SIGKILL or the out-of-memory killer skips;
the server would then live on for ever.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

MARK = "MANNERISM_PARENT"
SERVER = "prefect.server.api.server:create_app"


@contextmanager
def guarded_server() -> Iterator[None]:
    """While inside, a guard watches this process; children started inside carry its mark."""
    os.environ[MARK] = str(os.getpid())
    guard = subprocess.Popen(
        [sys.executable, "-m", "flows.guard", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in the terminal is not for the guard
    )
    try:
        yield
    finally:
        # Prefect stops its server itself at exit; the guard stays until then, and finds nothing to do.
        del os.environ[MARK]
        _kept.append(guard)


_kept: list[subprocess.Popen[bytes]] = []  # their pipes must stay open as long as we live


def end_servers(parent: str) -> int:
    """Ends the Prefect servers that a dead process left behind.

    Args:
        parent: process id of that process, as its children carry it.

    Returns:
        How many there were.
    """
    import psutil

    ended = 0
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if SERVER in process.cmdline() and process.environ().get(MARK) == parent:
                process.terminate()
                ended += 1
    return ended


if __name__ == "__main__":
    sys.stdin.read()  # ends when the parent does
    end_servers(sys.argv[1])
