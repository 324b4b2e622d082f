"""A file by which others can tell that an inbox is watched, by whom, and since when."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.storage import write_atomic

HEARTBEAT_FILE = "watcher.json"
EVERY_SECONDS = 5.0


@dataclass(frozen=True)
class Beat:
    """The last sign of life.

    Attributes:
        pid: of the watcher.
        time: of the sign, seconds since the epoch.
    """

    pid: int
    time: float


class Heartbeat:
    """The watcher's own side.

    Args:
        root: folder of the inbox on this machine.
    """

    def __init__(self, root: Path) -> None:
        self._path, self._next = root / HEARTBEAT_FILE, 0.0

    def beat(self) -> None:
        """Gives a sign of life, at most one every few seconds."""
        if time.monotonic() >= self._next:
            write_atomic(self._path, json.dumps({"pid": os.getpid(), "time": time.time()}) + "\n")
            self._next = time.monotonic() + EVERY_SECONDS

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Beats at once, and leaves no file behind when the block ends."""
        self.beat()
        try:
            yield
        finally:
            self._path.unlink(missing_ok=True)


def last_beat(root: Path) -> Beat | None:
    """The last sign of life of whoever watches an inbox.

    Args:
        root: folder of the inbox on this machine.

    Returns:
        None where nobody does, or nobody did who ended well.
    """
    try:
        told = json.loads((root / HEARTBEAT_FILE).read_text(encoding="utf-8"))
        return Beat(int(told["pid"]), float(told["time"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
