"""A Prefect worker that is asked to stop ends its flow runs first, each with a checkpoint; by itself it kills them.

    python -m flows.worker prefect worker start --pool gpu

is for containers; `mannerism up` does the same for its own workers.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from flows.guard import MARK, end_runs


def keep(command: Sequence[str]) -> int:
    """Runs a worker until it ends, or until SIGTERM or SIGINT asks for that.

    Args:
        command: of the worker.

    Returns:
        Its exit code.
    """
    mark = str(os.getpid())
    worker = subprocess.Popen(command, env={**os.environ, MARK: mark}, start_new_session=True)

    def stop(_number: int, _frame: FrameType | None) -> None:
        while end_runs(mark):
            pass  # a run that waited for one that has ended may have begun meanwhile
        worker.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return worker.wait()


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
