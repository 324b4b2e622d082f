"""Long-running services as children of one process: started in order, restarted when they die, ended together."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from pipeline_lib.errors import ResourceError

LONGEST_DELAY = 30.0
LOG_BYTES = 16 * 1024 * 1024
_LOOK_SECONDS = 0.2
_LASTING_SECONDS = 60.0  # who lived so long has recovered


@dataclass(frozen=True)
class Service:
    """A child that should always run.

    Attributes:
        name: for messages and for the log's name.
        command: program and arguments.
        ready: whether it can be used now; asked until it says so.
        ready_seconds: how long that may take.
        environment: beside the process's own.
    """

    name: str
    command: Sequence[str]
    ready: Callable[[], bool] = lambda: True
    ready_seconds: float = 90.0
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Child:
    """A service's life so far."""

    service: Service
    process: subprocess.Popen[bytes] | None = None
    born: float = 0.0
    delay: float = 1.0
    again_at: float = 0.0
    ready: bool = False


class Supervisor:
    """Keeps services running until it is closed.

    Every child leads a process group of its own, so that a Ctrl-C in the terminal is the supervisor's alone, and so
    that whatever a child has started in that group ends with it. What it has started in others, as Prefect's workers
    do with flow runs, is not the supervisor's.

    Args:
        logs: folder; each child writes to `<name>.log` there.
        tell: told in a sentence about deaths and restarts.
        grace_seconds: between the polite signal and the last one.
        log_bytes: a log that grows beyond goes on from nothing; what it held is in `<name>.log.1` until the next time.
    """

    def __init__(
        self, logs: Path, tell: Callable[[str], None], grace_seconds: float = 20.0, log_bytes: int = LOG_BYTES
    ) -> None:
        self._logs, self._tell, self._grace, self._log_bytes = logs, tell, grace_seconds, log_bytes
        self._children: list[_Child] = []

    def launch(self, *services: Service) -> None:
        """Starts services without waiting; :meth:`wait` does that."""
        for service in services:
            child = _Child(service)
            self._children.append(child)
            self._spawn(child)

    def wait(self, *names: str, stop: Callable[[], bool] = lambda: False) -> None:
        """Waits until services are ready.

        Args:
            *names: of those that count; none: all that were launched.
            stop: ends the waiting.

        Raises:
            ResourceError: one died, or was not ready in time; names its log.
        """
        waiting = [child for child in self._children if not names or child.service.name in names]
        while waiting and not stop():
            for child in list(waiting):
                if child.ready or child.service.ready():
                    child.ready = True
                    waiting.remove(child)
                else:
                    self._check_starting(child)
            if waiting:
                time.sleep(_LOOK_SECONDS)

    def start(self, service: Service) -> None:
        """Launches a service and waits until it is ready; raises what :meth:`wait` raises."""
        self.launch(service)
        self.wait(service.name)

    def watch(self, stop: Callable[[], bool]) -> None:
        """Restarts what dies, with a delay that doubles while it keeps dying, until `stop` says so."""
        while not stop():
            for child in self._children:
                self._look_after(child, time.monotonic())
                self._bound_log(child)
            time.sleep(_LOOK_SECONDS)

    def end(self, name: str) -> None:
        """Ends one service for good; nothing where there is none of this name."""
        for child in [child for child in self._children if child.service.name == name]:
            self._children.remove(child)
            if child.process is not None:
                _end_group(child.process, self._grace)

    def close(self) -> None:
        """Ends all, the last one started first; those that do not go are killed with all that they started."""
        for child in reversed(self._children.copy()):
            self.end(child.service.name)

    def pids(self) -> dict[str, int]:
        """Process ids of those that run, by name."""
        return {child.service.name: child.process.pid for child in self._children if child.process is not None}

    def _check_starting(self, child: _Child) -> None:
        assert child.process is not None
        name, patience = child.service.name, child.service.ready_seconds
        code = child.process.poll()
        if code is not None:
            raise ResourceError(f"{name} ended at once, exit code {code}; {self._see(child)}")
        if time.monotonic() > child.born + patience:
            raise ResourceError(f"{name} was not ready after {patience:.0f} s; {self._see(child)}")

    def _bound_log(self, child: _Child) -> None:
        # Copied, then emptied: the child goes on writing to the same file, at its end, wherever that is.
        log = self._log(child)
        with suppress(OSError):  # a log that somebody deleted, a full disk: no reason to end what runs
            if log.stat().st_size > self._log_bytes:
                shutil.copyfile(log, log.with_name(f"{log.name}.1"))
                os.truncate(log, 0)

    def _look_after(self, child: _Child, now: float) -> None:
        if child.process is None:
            if now >= child.again_at:
                self._spawn(child)
            return
        code = child.process.poll()
        if code is None:
            return
        _end_group(child.process, self._grace)  # what it started may have outlived it
        child.delay = 1.0 if now - child.born > _LASTING_SECONDS else min(LONGEST_DELAY, child.delay * 2)
        child.process, child.again_at = None, now + child.delay
        self._tell(f"{child.service.name} ended ({_cause(code)}); again in {child.delay:.0f} s; {self._see(child)}")

    def _spawn(self, child: _Child) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        with self._log(child).open("ab") as log:
            child.process = subprocess.Popen(
                child.service.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **child.service.environment},
                start_new_session=True,
            )
        child.born = time.monotonic()

    def _log(self, child: _Child) -> Path:
        return self._logs / f"{child.service.name}.log"

    def _see(self, child: _Child) -> str:
        return f"see {self._log(child)}"


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    named = -code in set(signal.Signals)  # not all of the real-time ones are
    return f"signal {signal.Signals(-code).name if named else -code}"


def _end_group(process: subprocess.Popen[bytes], grace: float) -> None:
    """SIGTERM to the whole group, then, to what is left of it, SIGKILL."""
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, grace)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        end = time.monotonic() + patience
        while time.monotonic() < end:
            process.poll()  # takes note of its end, so that it is no zombie of the group
            if not _members(process.pid):
                return
            time.sleep(0.05)


def _members(group: int) -> list[int]:
    """Process ids of a group that still run."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.Error):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found
