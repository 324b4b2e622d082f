"""Operating-system locks, which the holder's death frees; the one of a device: one training at a time."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline_lib.errors import StopRequested

LOOK_SECONDS = 2.0


def acquire(lock: FileLock, on_wait: Callable[[], None]) -> None:
    """Acquires a lock, however long that takes.

    Args:
        lock: to be held.
        on_wait: called every two seconds while another holds it; raising from it gives up.
    """
    timeout = 0.0
    while True:
        with suppress(Timeout):
            lock.acquire(timeout=timeout)
            return
        timeout = LOOK_SECONDS
        on_wait()


@contextmanager
def device_lock(
    device: str,
    folder: Path,
    *,
    on_wait: Callable[[str], None] = lambda _status: None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Holds a device for the length of a `with` block.

    Args:
        device: "cuda", "cuda:1", "cpu", …; a CUDA index is looked up in CUDA_VISIBLE_DEVICES.
        folder: where the locks of this machine lie; shared by all runs that shall take turns.
        on_wait: called every two seconds while waiting, with a sentence that tells who holds the device.
        stop: looked at while waiting.

    Yields:
        None: once, with the device held.

    Raises:
        StopRequested: `stop` became true before the device was free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = device_name(device, os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    lock = FileLock(folder / f"device-{name}.lock", poll_interval=0.2)
    holder = folder / f"device-{name}.holder"

    def wait() -> None:
        if stop():
            raise StopRequested(f"stopped while waiting for {device}")
        on_wait(f"waiting for {device}, {_told_by(holder)}")

    acquire(lock, wait)
    try:
        holder.write_text(json.dumps({"pid": os.getpid()}))
        yield
    finally:
        lock.release()


def device_name(device: str, visible: str) -> str:
    """A file name for the physical device behind a torch device string.

    Args:
        device: torch's name, e.g. "cuda:1".
        visible: the value of CUDA_VISIBLE_DEVICES; empty when not set.

    Returns:
        For example "cuda-3" or "cpu".
    """
    kind, _, index = device.partition(":")
    index = index or ("0" if kind == "cuda" else "")
    physical = [part.strip() for part in visible.split(",") if part.strip()]
    if kind == "cuda" and index.isdigit() and int(index) < len(physical):
        index = physical[int(index)]
    return re.sub(r"[^A-Za-z0-9-]", "-", f"{kind}-{index}" if index else kind)


def _told_by(holder: Path) -> str:
    try:
        return f"held by process {int(json.loads(holder.read_text())['pid'])}"
    except (OSError, ValueError, KeyError, TypeError):
        return "held by another process"
