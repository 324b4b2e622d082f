"""What is tried again, and what is not."""

from __future__ import annotations

import os
import signal
import time
from copy import copy
from pathlib import Path

import pytest

from pipeline_lib.errors import InputError, NonFiniteError, ResourceError, StopRequested, WorkerError
from pipeline_lib.processes.worker_child import WorkerDiedError
from pipeline_lib.steps.state import StateFolder
from tasks.session import RunSession
from tests.steps.tiny import small_clip, tiny_config


@pytest.fixture
def session(tmp_path: Path, tiny_folder: Path) -> RunSession:
    config = tiny_config(tiny_folder, [small_clip(tmp_path / "a.mp4")])
    return RunSession(config, StateFolder.open(tmp_path / "state"))


def training(session: RunSession, stage: str = "train-identity") -> None:
    """The session as it is while the worker trains a stage."""
    session._running = stage


def test_a_dead_worker_is_worth_another_try(session: RunSession) -> None:
    assert session.may_retry(WorkerDiedError("exited with code 1"))


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
    while not session._worker.pid and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(session._worker.pid, signal.SIGSTOP)  # one that does not go when it is asked
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
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

    from pipeline_lib.records import StageSpec
    from pipeline_lib.tracking.mlflow_tracker import MlflowTracker
    from tasks.watch import StageWatch

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracker = MlflowTracker(uri, "test", tmp_path / "artifacts")
    tracker.start_run("red", {}, {})
    spec = StageSpec(name="identity", method="lora", version=1, data="frames", steps=2)
    for error, status in ((ResourceError("out of memory"), "FAILED"), (StopRequested("stop"), "KILLED")):
        watch = StageWatch(tracker, spec)
        watch.fail(error)  # before the first event there is no run of the stage's own
        watch._tracker()
        watch.fail(error)
        run = MlflowClient(uri).search_runs(["1"], "tags.`mlflow.runName` = 'identity'")
        assert [found.info.status for found in run] == [status]
    tracker.end()
