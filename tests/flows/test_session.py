"""What is tried again, and what is not."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from copy import copy
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.errors import (
    InputError,
    NonFiniteError,
    ResourceError,
    StopRequested,
    UnreachableError,
    WorkerError,
)
from pipeline_lib.personalize import run_in_process
from pipeline_lib.processes.worker_child import WorkerDiedError
from pipeline_lib.records import ArtifactRef, StageSpec
from pipeline_lib.run_config import RunConfig, config_text
from pipeline_lib.steps.layout import LOSSES_FILE
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.steps.step import StepResult
from tasks.session import RunSession
from tests.steps.tiny import small_clip, tiny_config

SPEC = StageSpec(name="identity", method="lora", version=1, data="frames", steps=2)
HOLDER = """
import sys, time
from pathlib import Path
from pipeline_lib.run_config import load_config
from pipeline_lib.steps.state import StateFolder
from tasks.session import RunSession

session = RunSession(load_config(Path(sys.argv[1])), StateFolder.open(Path(sys.argv[2])))
session.start()
print("holds", flush=True)
time.sleep(600)
"""


@pytest.fixture
def config(tmp_path: Path, tiny_folder: Path) -> RunConfig:
    return tiny_config(tiny_folder, [small_clip(tmp_path / "a.mp4")])


@pytest.fixture
def session(tmp_path: Path, config: RunConfig) -> RunSession:
    return RunSession(config, StateFolder.open(tmp_path / "state"))


def training(session: RunSession, stage: str = "train-identity") -> None:
    """The session as it is while the worker trains a stage."""
    session._running = stage


def test_a_dead_worker_and_a_hub_that_is_away_are_worth_another_try(session: RunSession) -> None:
    assert session.may_retry(WorkerDiedError("exited with code 1"))
    assert session.may_retry(UnreachableError("somebody/tiny could not be fetched"))


def test_an_mlflow_that_is_away_is_worth_another_try(session: RunSession, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}"
    session.track()
    try:
        with pytest.raises(MlflowException) as away:
            MlflowClient(nobody).get_run("x")
        assert session.may_retry(away.value)
        with pytest.raises(MlflowException) as absent:
            MlflowClient(session.state.mlflow_uri).get_run("x")
        assert not session.may_retry(absent.value)
    finally:
        session.close()


@pytest.mark.parametrize(
    "error",
    [
        InputError("x"),
        NonFiniteError("x"),
        StopRequested("x"),
        ValueError("x"),
        WorkerError("train: no sign of life for 3600 s"),
        ResourceError("disk full while writing x"),
    ],
)
def test_what_would_fail_again_is_not_tried_again(session: RunSession, error: Exception) -> None:
    for running in ("encode", "train-identity"):
        training(session, running)
        assert not session.may_retry(error)


@pytest.mark.parametrize(
    "error", [ResourceError("out of memory during train"), WorkerDiedError("x", killed=True, out_of_memory=True)]
)
def test_training_that_ran_out_of_memory_is_tried_once_more_with_single_samples(
    session: RunSession, error: Exception
) -> None:
    training(session)
    assert session.may_retry(error)
    assert session._micro_batch == 1
    assert session.may_retry(error), "Prefect may ask twice about one error"
    assert not session.may_retry(copy(error))


@pytest.mark.parametrize(
    "error", [ResourceError("out of memory during encode"), WorkerDiedError("x", killed=True, out_of_memory=True)]
)
def test_a_micro_batch_helps_only_training(session: RunSession, error: Exception) -> None:
    training(session, "encode")
    assert not session.may_retry(error)
    assert session._micro_batch == session.config.training.micro_batch


def test_a_kill_that_nobody_explains_keeps_the_bits(session: RunSession) -> None:
    training(session)
    for _ in range(3):
        assert session.may_retry(WorkerDiedError("killed by SIGKILL", killed=True))
        assert session._micro_batch == session.config.training.micro_batch


def test_nothing_starts_before_it_is_needed(session: RunSession) -> None:
    assert session.finished is None
    assert not session.folder.path.exists()
    session.close()
    assert not session.folder.path.exists()


def test_a_second_interrupt_ends_the_wait_and_the_run_is_stopped(session: RunSession) -> None:
    session.start()
    end = time.monotonic() + 60
    # Its process is there a moment before it is asked for anything; one that is idle is not waited for.
    while not (session._worker.pid and session._worker._busy) and time.monotonic() < end:
        time.sleep(0.01)
    pid = session._worker.pid
    os.kill(pid, signal.SIGSTOP)  # one that does not go when it is asked
    # Of two signals that wait for a process which has no core, the lower number counts first: SIGTERM would end it.
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 1.0)  # by then it waits, also on a busy machine
    try:
        with pytest.raises(KeyboardInterrupt):
            session.close(KeyboardInterrupt())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert session._worker.pid == 0
    record = session.folder.record()
    assert record is not None
    assert record.status == "stopped"


def test_a_run_that_waits_for_a_person_has_no_worker_and_says_so(session: RunSession) -> None:
    session.start()
    session.rest("waits for the review of its samples")
    assert session._worker.pid == 0
    session.close(ValueError("what comes of the suspension"))
    record = session.folder.record()
    assert record is not None
    assert (record.status, record.error) == ("stopped", "waits for the review of its samples")


def test_a_stage_that_fails_is_no_longer_running(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    from pipeline_lib.tracking.mlflow_tracker import MlflowTracker
    from tasks.watch import StageWatch

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracker = MlflowTracker(uri, "test", tmp_path / "artifacts")
    tracker.start_run("red", {}, {})
    for error, status in ((ResourceError("out of memory"), "FAILED"), (StopRequested("stop"), "KILLED")):
        watch = StageWatch(tracker, SPEC)
        watch.fail(error)  # before the first event there is no run of the stage's own
        watch._tracker()
        watch.fail(error)
        run = MlflowClient(uri).search_runs(["1"], "tags.`mlflow.runName` = 'identity'")
        assert [found.info.status for found in run] == [status]
    tracker.end()


def test_a_stage_goes_on_while_mlflow_is_away_and_tells_all_of_it_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database belongs to somebody else for longer than MLflow waits for it."""
    from mlflow import MlflowClient

    from pipeline_lib.tracking.mlflow_tracker import MlflowTracker
    from tasks.watch import StageWatch

    monkeypatch.setattr("pipeline_lib.tracking.metric_log._FLUSH_SECONDS", 0.0)
    uri, folder = f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "stage"
    tracker = MlflowTracker(uri, "test", tmp_path / "artifacts")
    tracker.start_run("red", {}, {})
    watch = StageWatch(tracker, SPEC)
    stage = watch._tracker().run_id
    preview = tmp_path / "000002.mp4"
    preview.write_bytes(b"a video")
    with closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        watch.on_event({"event": "progress", "done": 1, "seconds": 0.1, "metrics": {"loss": 3.0}})
        watch.on_event({"event": "progress", "done": 2, "seconds": 0.1, "metrics": {"loss": 2.0}})
        watch.on_event({"event": "preview", "path": str(preview)})
        database.execute("ROLLBACK")
    folder.mkdir()
    (folder / LOSSES_FILE).write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n')
    result = StepResult(step="train-identity", ref=ArtifactRef(kind="stage", key="0", digest="0"), found=False)
    watch.finish(result, folder, "")
    tracker.end()
    client = MlflowClient(uri)
    assert [(one.step, one.value) for one in client.get_metric_history(stage, "loss")] == [(1, 3.0), (2, 2.0)]
    assert [one.step for one in client.get_metric_history(stage, "seconds")] == [1, 2]
    assert [entry.path for entry in client.list_artifacts(stage, "previews")] == ["previews/000002.mp4"]


def test_the_machines_load_is_noted_until_the_run_ends(session: RunSession) -> None:
    def noting() -> bool:
        return any(thread.name == "SystemMetricsMonitor" for thread in threading.enumerate())

    session.track()
    assert noting()
    session.close()
    assert not noting()


def started_beside(session: RunSession) -> tuple[threading.Thread, list[dict[str, Any]]]:
    """Starts a session in a thread of its own, and what it tells meanwhile."""
    told: list[dict[str, Any]] = []
    session.listen(told.append)
    thread = threading.Thread(target=session.start)
    thread.start()
    return thread, told


def test_who_makes_the_same_run_waits_and_finds_it_made(tmp_path: Path, config: RunConfig, session: RunSession) -> None:
    second = RunSession(config, session.state)
    session.start()
    thread, told = started_beside(second)
    thread.join(3)
    assert thread.is_alive()
    run_in_process(config, session.state, lambda _event: None)
    session.close()
    thread.join(30)
    assert second.finished is not None
    assert second._worker.pid == 0
    assert told[0] == {"event": "waiting", "words": f"waiting for another process that makes {session.folder.run_id}"}
    second.close()


def test_a_run_whose_process_was_killed_can_be_made_by_another(
    tmp_path: Path, config: RunConfig, session: RunSession
) -> None:
    (tmp_path / "run.yaml").write_text(config_text(config))
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run.yaml"), str(session.state.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holds\n"
        thread, told = started_beside(session)
        thread.join(3)
        assert thread.is_alive()
        assert told
        holder.kill()
    thread.join(30)
    assert not thread.is_alive()
    assert session.finished is None
    session.close()
