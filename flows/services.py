"""What `mannerism up` keeps running: each server, its command, and how to tell that it is ready."""

from __future__ import annotations

import os
import socket
import sys
import time
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import httpx

from deployments.apply import LIGHT_POOL, POOL
from flows.environment import HEARTBEAT_SECONDS
from pipeline_lib.drops.heartbeat import last_beat
from pipeline_lib.drops.places import drops_home, is_store
from pipeline_lib.errors import ConfigError
from pipeline_lib.processes.supervisor import Service
from pipeline_lib.steps.state import TRACKING_VARIABLE, StateFolder

HOST = "127.0.0.1"  # nobody logs in: not for other machines
_MIGRATION_SECONDS = 900.0  # an empty database gets its tables first, on a machine that may be busy


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Where the servers listen.

    Attributes:
        prefect: Prefect's API and UI.
        mlflow: MLflow's API and UI.
    """

    prefect: int = 4200
    mlflow: int = 5000

    @property
    def prefect_ui(self) -> str:
        """Prefect's UI."""
        return f"http://{HOST}:{self.prefect}"

    @property
    def prefect_api(self) -> str:
        """PREFECT_API_URL."""
        return f"{self.prefect_ui}/api"

    @property
    def mlflow_url(self) -> str:
        """MLflow's UI and tracking uri."""
        return f"http://{HOST}:{self.mlflow}"

    def check_free(self) -> None:
        """Raises ConfigError where something listens already; names the option that helps."""
        for option, port in (("--port", self.prefect), ("--mlflow-port", self.mlflow)):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((HOST, port))
                except OSError as error:
                    raise ConfigError(
                        f"port {port} is taken", got=str(error), fix=f"end what listens there, or give another {option}"
                    ) from error


WATCHER = "watcher"
LEASES_ON_DISK = {"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"}
"""In a server's memory, as is the default, leases end with it, but the slots in its database stay taken: for ever."""


def prefect_server(ports: Ports, database: str = "") -> Service:
    """Prefect's server with its UI.

    Args:
        ports: where.
        database: e.g. `postgresql://user:password@host/prefect`; empty: SQLite in PREFECT_HOME.

    Returns:
        What to run.
    """
    return Service(
        "prefect",
        _python("prefect", "server", "start", "--host", HOST, "--port", str(ports.prefect)),
        ready=lambda: _answers(f"{ports.prefect_api}/health"),
        ready_seconds=_MIGRATION_SECONDS,
        environment=LEASES_ON_DISK
        | ({"PREFECT_SERVER_DATABASE_CONNECTION_URL": with_driver(database, "asyncpg")} if database else {}),
    )


def mlflow_server(ports: Ports, state: StateFolder, database: str = "") -> Service:
    """MLflow's server with its UI.

    Args:
        ports: where.
        state: its files go there, and its database where no other is given.
        database: e.g. `postgresql://user:password@host/mlflow`; empty: SQLite.

    Returns:
        What to run.
    """
    files = ("--artifacts-destination", str(state.mlflow_artifacts))
    # No password for all to see in `ps`.
    store = with_driver(database, "psycopg") if database else state.mlflow_database
    return Service(
        "mlflow",
        _python("mlflow", "server", "--host", HOST, "--port", str(ports.mlflow), "--workers", "1", *files),
        ready=lambda: _answers(f"{ports.mlflow_url}/health"),
        ready_seconds=_MIGRATION_SECONDS,
        environment={
            "MLFLOW_BACKEND_STORE_URI": store,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight more processes, which nothing here asks for
        },
    )


def worker(ports: Ports) -> Service:
    """What runs flows that load models on this machine."""
    return _worker(ports, "worker", POOL)


def light_worker(ports: Ports) -> Service:
    """What runs flows that start others and wait: in the pool of those, it would take the slot that they wait for."""
    return _worker(ports, "light-worker", LIGHT_POOL)


def _worker(ports: Ports, service: str, pool: str) -> Service:
    name = f"{socket.gethostname()}-{os.getpid()}"
    return Service(
        service,
        _python("prefect", "worker", "start", "--pool", pool, "--name", name),
        ready=lambda: _is_online(ports, pool, name),
        environment={
            TRACKING_VARIABLE: ports.mlflow_url,
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        },
    )


def watcher(ports: Ports, drops: str = "", config: str = "") -> Service:
    """What turns data drops into runs.

    Args:
        ports: of the servers.
        drops: holds the inbox: a folder, or the URL of an object store; empty: in the state folder.
        config: file of the runs' base, method and training; empty: the defaults.

    Returns:
        What to run.
    """
    home, since = drops_home(drops, StateFolder.open()), time.time()
    options = ("--config", str(Path(config).expanduser().resolve())) if config else ()
    return Service(
        WATCHER,
        _python("flows.cli.main", "watch", drops if is_store(drops) else str(home), *options),
        ready=lambda: (beat := last_beat(home)) is not None and beat.time >= since,  # not of one that was killed
        environment={"PREFECT_API_URL": ports.prefect_api},
    )


def with_driver(database: str, driver: str) -> str:
    """A PostgreSQL address with the driver that its reader needs, where it names none.

    Args:
        database: e.g. `postgresql://user:password@host/name`, as PostgreSQL's own tools take it.
        driver: e.g. "asyncpg".

    Returns:
        E.g. `postgresql+asyncpg://user:password@host/name`; any other address as it is.

    Raises:
        ConfigError: the driver is not installed.
    """
    kind, mark, rest = database.partition("://")
    if kind not in ("postgres", "postgresql"):
        return database
    if find_spec(driver) is None:
        raise ConfigError(f"PostgreSQL needs {driver}", fix="install the extra: pip install -e '.[postgres]'")
    return f"postgresql+{driver}{mark}{rest}"


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)


@cache
def _client() -> httpx.Client:
    return httpx.Client(timeout=5)  # kept: making one costs 30 ms, and readiness is asked for all the time


def _answers(url: str) -> bool:
    try:
        return _client().get(url).is_success
    except httpx.HTTPError:
        return False


def _is_online(ports: Ports, pool: str, name: str) -> bool:
    try:
        reply = _client().post(f"{ports.prefect_api}/work_pools/{pool}/workers/filter", json={})
        return any(item["name"] == name and item["status"] == "ONLINE" for item in reply.raise_for_status().json())
    except (httpx.HTTPError, ValueError):
        return False
