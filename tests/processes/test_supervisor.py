"""Services as children: ready or told why not, restarted when they die, ended with all that they started."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pipeline_lib.errors import ResourceError
from pipeline_lib.processes.supervisor import Service, Supervisor

SLEEPS = "import time; time.sleep(100)"
HAS_A_CHILD = (
    "import subprocess, sys, time, pathlib\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])\n"
    "pathlib.Path(sys.argv[1]).write_text(str(child.pid)); time.sleep(100)"
)
DEAF = (
    "import signal, sys, time, pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "pathlib.Path(sys.argv[1]).touch(); time.sleep(100)"
)


def program(code: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code, *arguments)


def wait_for(reached: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


class Told:
    """A supervisor and what it told."""

    def __init__(self, logs: Path) -> None:
        self.lines: list[str] = []
        self.supervisor = Supervisor(logs, self.lines.append, grace_seconds=3)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    made = Told(tmp_path / "logs")
    yield made
    made.supervisor.close()


def test_a_service_that_dies_is_started_again_and_told(told: Told) -> None:
    told.supervisor.start(Service("sleeper", program(SLEEPS)))
    first = told.supervisor.pids()["sleeper"]
    os.kill(first, signal.SIGKILL)
    told.supervisor.watch(lambda: told.supervisor.pids().get("sleeper", first) != first)
    (line,) = told.lines
    assert "sleeper" in line
    assert "SIGKILL" in line
    assert "sleeper.log" in line


def test_one_that_keeps_dying_waits_longer_each_time(told: Told) -> None:
    told.supervisor.start(Service("hasty", program("raise SystemExit(3)")))
    told.supervisor.watch(lambda: len(told.lines) == 2)
    assert "exit code 3" in told.lines[0]
    assert "again in 2 s" in told.lines[0]
    assert "again in 4 s" in told.lines[1]


def test_the_end_takes_grandchildren_along(told: Told, tmp_path: Path) -> None:
    note = tmp_path / "grandchild"
    told.supervisor.start(Service("parent", program(HAS_A_CHILD, str(note)), ready=note.exists))
    wait_for(lambda: note.read_text() != "")
    pids = [int(note.read_text()), told.supervisor.pids()["parent"]]
    told.supervisor.close()
    assert all(gone(pid) for pid in pids)


def test_grandchildren_of_a_dead_service_end_before_it_starts_again(told: Told, tmp_path: Path) -> None:
    note = tmp_path / "grandchild"
    told.supervisor.start(Service("parent", program(HAS_A_CHILD, str(note)), ready=note.exists))
    wait_for(lambda: note.read_text() != "")
    orphan = int(note.read_text())
    os.kill(told.supervisor.pids()["parent"], signal.SIGKILL)
    told.supervisor.watch(lambda: bool(told.lines))
    assert gone(orphan)


def test_who_does_not_listen_is_killed(told: Told, tmp_path: Path) -> None:
    note = tmp_path / "deaf"
    told.supervisor.start(Service("deaf", program(DEAF, str(note)), ready=note.exists))
    pid = told.supervisor.pids()["deaf"]
    told.supervisor.close()
    assert gone(pid)


def test_services_that_are_launched_together_are_waited_for_together(told: Told, tmp_path: Path) -> None:
    notes = [tmp_path / "one", tmp_path / "two"]
    code = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(100)"
    services = [Service(note.name, program(code, str(note)), ready=note.exists) for note in notes]
    told.supervisor.launch(*services, Service("never", program(SLEEPS), ready=lambda: False))
    told.supervisor.wait("one", "two")
    assert all(note.exists() for note in notes)
    assert told.supervisor.pids().keys() == {"one", "two", "never"}


def test_a_log_is_bounded_and_goes_on(tmp_path: Path) -> None:
    lines: list[str] = []
    supervisor = Supervisor(tmp_path, lines.append, grace_seconds=3, log_bytes=20_000)
    talks = "import time\nfor number in range(10**9): print(number, 'x' * 90, flush=True); time.sleep(0.001)"
    log, older = tmp_path / "talker.log", tmp_path / "talker.log.1"
    try:
        supervisor.start(Service("talker", program(talks)))
        supervisor.watch(older.exists)
        first = older.read_text().splitlines()
        supervisor.watch(lambda: older.read_text().splitlines()[:1] != first[:1])
    finally:
        supervisor.close()
    assert not lines, "nothing died"
    assert log.stat().st_size < 200_000
    assert first[0].startswith("0 x")
    last = log.read_text().splitlines()[-1]
    assert last.endswith("x")
    assert int(last.split()[0]) > int(first[-1].split()[0])
    assert "\0" not in log.read_text(), "a hole where the emptied file was"


@pytest.mark.parametrize(("code", "said"), [("raise SystemExit(4)", "exit code 4"), (SLEEPS, "not ready after 1 s")])
def test_a_service_that_is_never_ready_is_one_clear_error(told: Told, code: str, said: str) -> None:
    with pytest.raises(ResourceError, match=said) as raised:
        told.supervisor.start(Service("late", program(code), ready=lambda: False, ready_seconds=1.0))
    assert "late.log" in str(raised.value)
