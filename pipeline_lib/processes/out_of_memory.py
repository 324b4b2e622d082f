"""Whether the kernel killed processes for want of memory: a SIGKILL does not tell who sent it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

COUNTERS = (
    Path("/sys/fs/cgroup/memory.events"),
    Path("/sys/fs/cgroup/memory/memory.oom_control"),
    Path("/proc/vmstat"),
)


def kernel_kills(counters: Sequence[Path] = COUNTERS) -> int:
    """How many processes the kernel has killed for want of memory so far, here and in this container.

    Args:
        counters: files with lines `name number`, of which `oom_kill` is read; those that are missing count 0.

    Returns:
        A number that only grows; a rise between two calls means that memory ran out in between.
    """
    total = 0
    for path in counters:
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        for name, _, number in (line.partition(" ") for line in lines):
            if name == "oom_kill" and number.strip().isdigit():
                total += int(number)
    return total
