"""Joining the servers of an `up`, and ports; `up` whole is tested in tests/system."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

from flows.environment import UP_FILE, UP_LOCK, join_servers
from flows.services import Ports, mlflow_server, prefect_server, with_driver
from pipeline_lib.errors import ConfigError
from pipeline_lib.steps.state import TRACKING_VARIABLE, StateFolder
from tests.conftest import REPOSITORY

ADDRESSES = {"prefect": "http://127.0.0.1:1/api", "mlflow": "http://127.0.0.1:2"}


@pytest.fixture
def up_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateFolder:
    """A state folder with addresses; what joining sets is taken back."""
    names = (
        "PREFECT_API_URL",
        TRACKING_VARIABLE,
        "PREFECT_LOGGING_TO_API_ENABLED",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY",
    )
    for name in names:
        monkeypatch.setenv(name, "")  # so that the test's end removes it
        monkeypatch.delenv(name)
    (tmp_path / UP_FILE).write_text(json.dumps(ADDRESSES))
    return StateFolder.open(tmp_path)


def test_servers_that_run_are_joined(up_state: StateFolder) -> None:
    with FileLock(up_state.root / UP_LOCK):
        assert join_servers(up_state)
    assert os.environ["PREFECT_API_URL"] == ADDRESSES["prefect"]
    assert up_state.mlflow_uri == ADDRESSES["mlflow"]


def test_what_a_person_has_set_stays(up_state: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere/api")
    with FileLock(up_state.root / UP_LOCK):
        join_servers(up_state)
    assert os.environ["PREFECT_API_URL"] == "http://elsewhere/api"


def test_addresses_that_a_killed_one_left_are_not_used(up_state: StateFolder) -> None:
    assert not join_servers(up_state)
    assert "PREFECT_API_URL" not in os.environ
    assert up_state.mlflow_uri == up_state.mlflow_database


def test_no_servers_nothing_joined(tmp_path: Path) -> None:
    assert not join_servers(StateFolder.open(tmp_path / "none"))


def test_a_taken_port_is_named_with_its_option() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is taken.*--mlflow-port"):
            Ports(mlflow=port, prefect=0).check_free()


def test_a_database_password_is_on_no_command_line(up_state: StateFolder) -> None:
    address = "postgresql://user:secret@host/name"
    mlflow, prefect = mlflow_server(Ports(), up_state, address), prefect_server(Ports(), address)
    assert not any("secret" in word for service in (mlflow, prefect) for word in service.command)
    assert mlflow.environment["MLFLOW_BACKEND_STORE_URI"] == "postgresql+psycopg://user:secret@host/name"
    name = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
    assert prefect.environment[name] == "postgresql+asyncpg://user:secret@host/name"


def test_an_address_gets_its_driver_where_it_names_none() -> None:
    assert with_driver("postgres://host/name", "asyncpg") == "postgresql+asyncpg://host/name"
    for complete in ("postgresql+psycopg2://host/name", "sqlite:////state/mlflow.db"):
        assert with_driver(complete, "psycopg") == complete
    with pytest.raises(ConfigError, match=r"needs no_such_driver.*\[postgres\]"):
        with_driver("postgresql://host/name", "no_such_driver")


def made(target: str, folder: Path, program: str, script: str) -> subprocess.CompletedProcess[str]:
    """What `make` does for a target, with a script in a program's place."""
    stamp = folder / "stamp"
    stamp.touch()  # all is installed
    (folder / program).write_text(f"#!/bin/sh\n{script}\n")
    (folder / program).chmod(0o755)
    not_ours = ("HF_HUB_OFFLINE", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")  # those of a `make test`
    inherited = {name: value for name, value in os.environ.items() if name not in not_ours}
    return subprocess.run(
        ["make", "--no-print-directory", target, f"BIN={folder}", f"STAMP={stamp}"],
        cwd=REPOSITORY,
        env=inherited,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("target", "offline"), [("up", "unset"), ("demo", "1")])
def test_a_run_of_up_may_ask_a_hub_and_the_demo_does_not(tmp_path: Path, target: str, offline: str) -> None:
    done = made(target, tmp_path, "mannerism", 'echo "offline: ${HF_HUB_OFFLINE-unset}"')
    assert done.stdout.splitlines()[-1] == f"offline: {offline}", done.stderr


def test_proofs_go_on_after_one_that_fails_and_tell_it(tmp_path: Path) -> None:
    done = made("proofs", tmp_path, "python", 'echo "$@"; [ "$2" != benchmarks.kills ]')
    first, *others = done.stdout.splitlines()
    assert first == "-m benchmarks.kills"
    assert {"-m benchmarks.drops", "-m benchmarks.overhead --rounds 3"} <= set(others), done.stderr
    assert done.returncode != 0
