"""A killed process leaves no open run, and its log is there."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil

from pipeline_lib.tracking.mlflow_tracker import MlflowTracker
from pipeline_lib.tracking.reaper import Reaper

PROGRAM = """
import sys, time
from pathlib import Path
from pipeline_lib.tracking import DIGEST_TAG
from pipeline_lib.tracking.mlflow_tracker import MlflowTracker
from pipeline_lib.tracking.reaper import Reaper

uri, place, log = sys.argv[1:]
reaper = Reaper(uri, "reaped", "red", Path(log))
tracker = MlflowTracker(uri, "reaped", place)
tracker.start_run("parent", {DIGEST_TAG: "red"}, {})
tracker.child("stage")
print(reaper.pid, flush=True)
time.sleep(600)
"""


def test_a_killed_process_leaves_no_open_run_and_its_log(tmp_path: Path) -> None:
    uri, log = f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "run.log"
    log.write_text("step 1")
    command = [sys.executable, "-c", PROGRAM, uri, str(tmp_path / "files"), str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reaper = psutil.Process(int(process.stdout.readline()))
        assert not any(uri in word for word in reaper.cmdline())  # a password may be in it
        process.kill()
    end = time.monotonic() + 200
    while reaper.is_running() and reaper.status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
        time.sleep(0.2)
    connection = MlflowTracker(uri, "reaped", tmp_path / "files")._connection
    runs = {run.info.run_name: run.info for run in connection.find("")}
    assert {name: run.status for name, run in runs.items()} == {"parent": "KILLED", "stage": "KILLED"}
    (kept,) = connection.client.list_artifacts(runs["parent"].run_id)
    assert kept.path == "run.log"


def test_a_dismissed_reaper_does_nothing(tmp_path: Path) -> None:
    reaper = Reaper(f"sqlite:///{tmp_path / 'mlflow.db'}", "reaped")
    reaper.dismiss()
    assert not psutil.pid_exists(reaper.pid)
    assert not list(tmp_path.iterdir())
