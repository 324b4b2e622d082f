"""Limits this process, then becomes the command: run as a script, with nothing but the standard library.

Usage: `python -I -S limit_launcher.py MEMORY_BYTES CPU_SECONDS COMMAND...`. Limits set after a fork by the
parent itself (`preexec_fn`) can deadlock a parent with threads; a launcher cannot.
"""

from __future__ import annotations

import os
import resource
import sys


def main(arguments: list[str]) -> None:
    """Sets the limits and replaces this process by the command; does not return."""
    memory_bytes, cpu_seconds = int(arguments[0]), int(arguments[1])
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, memory_bytes)
    # The soft limit sends SIGXCPU, which the parent can name; the hard one, a little later, SIGKILL.
    _limit(resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 5)
    os.execv(arguments[2], arguments[2:])  # noqa: S606


def _limit(kind: int, soft: int, hard: int | None = None) -> None:
    try:
        resource.setrlimit(kind, (soft, soft if hard is None else hard))
    except (ValueError, OSError):
        # Not every system has every limit (macOS refuses RLIMIT_AS); the wall clock still guards.
        return


if __name__ == "__main__":
    main(sys.argv[1:])
