"""Who is stopped first, and how long each may take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import yaml

from flows.guard import FLOW_RUN, MARK, end_children
from pipeline_lib.processes.grace import CHECKPOINT_SECONDS, RUN_SECONDS
from tests.conftest import REPOSITORY

# Notes when it was asked to stop, and when it did: half a second later.
ENDS = """
import signal, sys, time
from pathlib import Path

def end(*_):
    asked = time.monotonic()
    time.sleep(0.5)
    Path(sys.argv[1]).write_text(f"{asked} {time.monotonic()}")
    sys.exit()

signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(600)
"""


def test_runs_end_while_the_servers_that_take_their_last_word_still_live(tmp_path: Path) -> None:
    mark = uuid4().hex
    started = []
    for name, words in (("server", ()), ("run", ("-m", FLOW_RUN)), ("worker", ())):
        process = subprocess.Popen(
            [sys.executable, "-c", ENDS, str(tmp_path / name), *words],
            env={**os.environ, MARK: mark},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        started.append(process)
    assert end_children(mark, everything=True) == 3
    for process in started:
        process.communicate(timeout=10)
    times = {path.name: [float(word) for word in path.read_text().split()] for path in tmp_path.iterdir()}
    (_, run_ended), (server_asked, _), (worker_asked, _) = times["run"], times["server"], times["worker"]
    assert run_ended < min(server_asked, worker_asked)


def test_a_worker_of_a_container_outlives_its_runs(tmp_path: Path) -> None:
    """As Prefect's does, this one starts its run in a session of its own."""
    run = [sys.executable, "-c", ENDS, str(tmp_path / "run"), "-m", FLOW_RUN]
    started = f"signal.signal(signal.SIGCHLD, signal.SIG_IGN)\nsubprocess.Popen({run!r}, start_new_session=True)"
    worker = f"import signal, subprocess\n{started}\n{ENDS}"
    command = [sys.executable, "-m", "flows.worker", sys.executable, "-c", worker, str(tmp_path / "worker")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "ready\n"]
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0
    times = {path.name: [float(word) for word in path.read_text().split()] for path in tmp_path.iterdir()}
    assert times["run"][1] < times["worker"][0]


def test_who_waits_from_outside_waits_longer() -> None:
    compose = yaml.safe_load((REPOSITORY / "deployments" / "compose.yaml").read_text())
    pool = json.loads((REPOSITORY / "deployments" / "kubernetes" / "pool.json").read_text())
    pod = pool["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    outside = float(compose["services"]["worker"]["stop_grace_period"].removesuffix("s"))
    assert CHECKPOINT_SECONDS < RUN_SECONDS < min(outside, pod["terminationGracePeriodSeconds"])
