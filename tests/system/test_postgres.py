"""`mannerism up` with PostgreSQL behind both servers: a real cluster, made for the test by Debian's own programs."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.steps.tiny import small_clip, tiny_config
from tests.system.servers import DEPLOYMENT, Up, free_port, parameters

pytestmark = [pytest.mark.system, pytest.mark.timeout(2400)]
PASSWORD = "a0secret0of0the0test"


def programs() -> Path:
    """Where initdb and pg_ctl are; Debian keeps them out of PATH."""
    found = [Path(name).resolve().parent for name in (shutil.which("initdb"),) if name]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    place = next((folder for folder in found if (folder / "initdb").exists() and (folder / "pg_ctl").exists()), None)
    if place is None and os.environ.get("CI") == "true":
        pytest.fail("no initdb and pg_ctl here")
    if place is None:
        pytest.skip("no initdb and pg_ctl here: apt-get install postgresql")
    return place


@dataclass(frozen=True)
class Cluster:
    """A PostgreSQL server with two empty databases, and how to reach them."""

    folder: Path
    port: int

    def address(self, database: str) -> str:
        return f"postgresql://mannerism:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def ask(self, database: str, question: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.address(database)) as connection:
            return connection.execute(question).fetchall()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    place, port = programs(), free_port()
    # PostgreSQL refuses to run as root, and pytest's own folders are closed to others.
    user = next((name for name in ("postgres", "nobody") if os.geteuid() == 0 and _exists(name)), "")
    with tempfile.TemporaryDirectory(prefix="mannerism-postgres-") as name:
        folder = Path(name)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if user:
            entry = pwd.getpwnam(user)
            for path in (folder, secret):
                os.chown(path, entry.pw_uid, entry.pw_gid)

        def run(program: str, *arguments: str) -> None:
            identity = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}
            command = [str(place / program), *arguments]
            with (folder.parent / f"{folder.name}.log").open("ab") as log:
                subprocess.run(command, check=True, cwd="/", stdout=log, stderr=subprocess.STDOUT, **identity)

        data = str(folder / "data")
        access = ("--username=mannerism", f"--pwfile={secret}", "--auth=scram-sha-256")
        run("initdb", "--pgdata", data, "--no-sync", "--encoding=UTF8", "--locale=C", *access)
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories='' -c fsync=off"
        run("pg_ctl", "--pgdata", data, "--wait", "--timeout=300", f"--options={options}", "start")
        made = Cluster(folder, port)
        try:
            with psycopg.connect(made.address("postgres"), autocommit=True) as connection:
                for database in ("prefect", "mlflow"):
                    connection.execute(f"CREATE DATABASE {database}")
            yield made
        finally:
            run("pg_ctl", "--pgdata", data, "--wait", "--timeout=120", "--mode=immediate", "stop")
            (folder.parent / f"{folder.name}.log").unlink()


def _exists(user: str) -> bool:
    try:
        return bool(pwd.getpwnam(user))
    except KeyError:
        return False


@pytest.fixture(scope="module")
def up(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    service = Up(
        tmp_path_factory.mktemp("up") / "state",
        MANNERISM_PREFECT_DATABASE=cluster.address("prefect"),
        MANNERISM_MLFLOW_DATABASE=cluster.address("mlflow"),
    )
    try:
        service.wait()
        yield service
    finally:
        service.kill()


def test_a_run_is_in_both_databases(up: Up, cluster: Cluster, tiny_folder: Path, tmp_path: Path) -> None:
    config = tiny_config(tiny_folder, [small_clip(tmp_path / "kept.mp4")])
    arguments = ("prefect", "deployment", "run", DEPLOYMENT, "--params", parameters(config), "--watch")
    done = up.command(*arguments, PREFECT_API_URL=up.ports.prefect_api)
    assert done.returncode == 0, done.stdout + done.stderr
    assert cluster.ask("prefect", "SELECT name, state_type::text FROM flow_run") == [("kept", "COMPLETED")]
    assert ("kept", "FINISHED") in cluster.ask("mlflow", "SELECT name, status FROM runs")
    assert cluster.ask("mlflow", "SELECT name FROM registered_models") == [("kept",)]


def test_no_database_of_another_kind_is_left_in_the_state_folder(up: Up) -> None:
    assert not [path for path in up.state.rglob("*.db") if path.stat().st_size and "ledger" not in path.name]


def test_nobody_sees_the_password(up: Up) -> None:
    assert up.children()
    for process in psutil.process_iter():
        try:
            assert PASSWORD not in " ".join(process.cmdline()), process
        except psutil.Error:
            continue
    others = [process for process in up.children() if {"worker", "watch"} & set(process.cmdline())]
    assert len(others) == 3
    for process in others:
        assert PASSWORD not in str(process.environ()), process
    for log in (up.state / "logs").glob("*.log"):
        assert PASSWORD not in log.read_text(errors="replace"), log


def test_it_ends_well(up: Up) -> None:
    assert up.end() == 0
    assert not up.children()
