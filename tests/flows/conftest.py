from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

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
