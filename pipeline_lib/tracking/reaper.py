"""A run does not stay open when its process is killed: a small process waits for that and closes what is left.

    python -m pipeline_lib.tracking.reaper EXPERIMENT [DIGEST LOG]

reads its standard input: first the uri, which may hold a password, then nothing until it ends with its parent, whatever
the end was. Where the whole machine goes, the next run
closes what is left (:meth:`pipeline_lib.tracking.mlflow_tracker.MlflowTracker.close_dangling`).
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

_DISMISSED = "dismissed"


class Reaper:
    """Waits for our death from here on; it costs a sleeping process that has imported next to nothing.

    Args:
        uri: of the tracking server or database.
        experiment: whose open runs of dead processes it closes then, as KILLED.
        digest: of our run there; empty: there is no log.
        log: a file that the run gets then, as it would have at its end.
    """

    def __init__(self, uri: str, experiment: str, digest: str = "", log: Path = Path()) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, experiment, digest, str(log)],
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


def reap(uri: str, experiment: str, digest: str = "", log: str = "") -> list[str]:
    """Closes runs left open by processes of this machine that are gone.

    Args:
        uri: of the tracking server or database.
        experiment: its name.
        digest: of a run that gets a log, if it is among them; empty: none does.
        log: that file.

    Returns:
        The ids of the runs that were closed.
    """
    from pipeline_lib.tracking.connection import close_dangling, connect

    connection = connect(uri, experiment, "")
    closed = close_dangling(connection)
    if digest and Path(log).is_file() and (run := connection.find_run(digest)) in closed:
        connection.client.log_artifact(run, log)
    return closed


def _wait() -> None:
    uri = sys.stdin.readline().strip()
    if uri and sys.stdin.read() != _DISMISSED:
        reap(uri, *sys.argv[1:])


if __name__ == "__main__":
    _wait()
