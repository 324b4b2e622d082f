"""A run does not stay open when its process is killed: a small process waits for that and closes what is left.

    python -m pipeline_lib.tracking.reaper EXPERIMENT

reads its standard input: first the uri, which may hold a password, then nothing until it ends with its parent, whatever
the end was. Where the whole machine goes, the next run
closes what is left (:meth:`pipeline_lib.tracking.mlflow_tracker.MlflowTracker.close_dangling`).
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress

_DISMISSED = "dismissed"


class Reaper:
    """Waits for our death from here on; it costs a sleeping process that has imported next to nothing.

    Args:
        uri: of the tracking server or database.
        experiment: whose open runs of dead processes it closes then, as KILLED.
    """

    def __init__(self, uri: str, experiment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, experiment],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what ends our process group, or Ctrl-C, is not for it
            text=True,
        )
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{uri}\n")
            self._process.stdin.flush()

    @property
    def pid(self) -> int:
        """Of the process that waits."""
        return self._process.pid

    def dismiss(self) -> None:
        """We have closed our runs ourselves."""
        with suppress(BrokenPipeError):
            self._process.communicate(_DISMISSED)


def reap(uri: str, experiment: str) -> list[str]:
    """Closes runs left open by processes of this machine that are gone.

    Args:
        uri: of the tracking server or database.
        experiment: its name.

    Returns:
        The ids of the runs that were closed.
    """
    from pipeline_lib.tracking.connection import close_dangling, connect

    return close_dangling(connect(uri, experiment, ""))


def _wait() -> None:
    uri = sys.stdin.readline().strip()
    if uri and sys.stdin.read() != _DISMISSED:
        reap(uri, sys.argv[1])


if __name__ == "__main__":
    _wait()
