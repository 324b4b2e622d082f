"""What is tried again, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline_lib.errors import InputError, NonFiniteError, ResourceError, StopRequested, WorkerError
from pipeline_lib.steps.state import StateFolder
from tasks.session import RunSession
from tests.steps.tiny import small_clip, tiny_config


@pytest.fixture
def session(tmp_path: Path, tiny_folder: Path) -> RunSession:
    config = tiny_config(tiny_folder, [small_clip(tmp_path / "a.mp4")])
    return RunSession(config, StateFolder.open(tmp_path / "state"))


def test_a_dead_worker_is_worth_another_try(session: RunSession) -> None:
    assert session.may_retry(WorkerError("killed"))


@pytest.mark.parametrize("error", [InputError("x"), NonFiniteError("x"), StopRequested("x"), ValueError("x")])
def test_what_would_fail_again_is_not_tried_again(session: RunSession, error: Exception) -> None:
    assert not session.may_retry(error)


def test_out_of_memory_is_tried_once_more_and_a_full_disk_never(session: RunSession) -> None:
    assert not session.may_retry(ResourceError("disk full while writing x"))
    assert session.may_retry(ResourceError("out of memory during train"))
    assert not session.may_retry(ResourceError("out of memory during train"))


def test_nothing_starts_before_it_is_needed(session: RunSession) -> None:
    assert session.finished is None
    assert not session.folder.path.exists()
    session.close()
    assert not session.folder.path.exists()
