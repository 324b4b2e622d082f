from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flows.environment import prepare_environment
from pipeline_lib.steps.state import StateFolder
from tests.steps.tiny import options, small_clip


class CommandRun(NamedTuple):
    """A `mannerism run --json` that is done: its state folder, its command line, what it printed."""

    state: StateFolder
    arguments: list[str]
    output: str
    errors: str
    result: dict[str, Any]


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateFolder]:
    """A state folder, and one Prefect server for all tests of this directory."""
    with pytest.MonkeyPatch.context() as patch:
        folder = StateFolder.open(tmp_path_factory.mktemp("state"))
        patch.setenv("MANNERISM_STATE", str(folder.root))
        patch.setenv("OMP_NUM_THREADS", "1")  # the worker's arithmetic, as this process's own
        prepare_environment(folder, quiet=True)
        from prefect.testing.utilities import prefect_test_harness

        with prefect_test_harness(server_startup_timeout=600):
            yield folder


@pytest.fixture(scope="session")
def command_run(state: StateFolder, tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> CommandRun:
    """One whole run by the command line: worker child, Prefect, MLflow."""
    clip = small_clip(tmp_path_factory.mktemp("clips") / "red.mp4")
    arguments = ["run", str(clip), *options(tiny_folder), "--set", "training.preview_every=4", "--json"]
    code, output, errors = command(arguments)
    assert code == 0, errors
    return CommandRun(state, arguments, output, errors, json.loads(output.splitlines()[-1]))


def command(arguments: list[str]) -> tuple[int, str, str]:
    """Runs the command line in this process: exit code, standard output, standard error."""
    from flows.cli.ending import ended
    from flows.cli.main import app

    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        code = ended(app, arguments)
    return code, output.getvalue(), errors.getvalue()
