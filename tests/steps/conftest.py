from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipeline_lib.personalize import run_in_process
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.run_folder import RunResult
from pipeline_lib.steps.state import StateFolder
from tests.steps.tiny import small_clip, tiny_config


class Finished(NamedTuple):
    """A run that is done, and what it said on the way."""

    config: RunConfig
    state: StateFolder
    result: RunResult
    events: list[dict[str, Any]]


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_clip(tmp_path_factory.mktemp("clips") / "Red Square.mp4")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, clip: Path) -> Finished:
    """One whole run, in-process."""
    config = tiny_config(tiny_folder, [clip], "training.preview_every=2")
    state = StateFolder.open(tmp_path_factory.mktemp("state"))
    events: list[dict[str, Any]] = []
    return Finished(config, state, run_in_process(config, state, events.append), events)


@pytest.fixture
def run_again(finished: Finished) -> Callable[..., RunResult]:
    """Runs a changed config in the state folder of the finished run."""

    def run(config: RunConfig = finished.config) -> RunResult:
        return run_in_process(config, finished.state, lambda _event: None)

    return run
