"""What `mannerism up` keeps running: each server, its command, and how to tell that it is ready."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx

from deployments.apply import POOL
from flows.environment import HEARTBEAT_SECONDS
from pipeline_lib.errors import ConfigError
from pipeline_lib.processes.supervisor import Service
from pipeline_lib.steps.state import TRACKING_VARIABLE, StateFolder

HOST = "127.0.0.1"  # nobody logs in: not for other machines


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


def prefect_server(ports: Ports, database: str = "") -> Service:
    """Prefect's server with its UI.

    Args:
        ports: where.
        database: e.g. `postgresql+asyncpg://user:password@host/prefect`; empty: SQLite in PREFECT_HOME.

    Returns:
        What to run.
    """
    return Service(
        "prefect",
        _python("prefect", "server", "start", "--host", HOST, "--port", str(ports.prefect)),
        ready=lambda: _answers(f"{ports.prefect_api}/health"),
        environment={"PREFECT_SERVER_DATABASE_CONNECTION_URL": database} if database else {},
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
    return Service(
        "mlflow",
        _python("mlflow", "server", "--host", HOST, "--port", str(ports.mlflow), "--workers", "1", *files),
        ready=lambda: _answers(f"{ports.mlflow_url}/health"),
        environment={"MLFLOW_BACKEND_STORE_URI": database or state.mlflow_database},  # no password for all in `ps`
    )


def worker(ports: Ports, limit: int) -> Service:
    """A Prefect worker of this machine.

    Args:
        ports: of the servers.
        limit: flow runs at once; those that train take turns on a device anyway.

    Returns:
        What to run.
    """
    name = f"{socket.gethostname()}-{os.getpid()}"
    return Service(
        "worker",
        _python("prefect", "worker", "start", "--pool", POOL, "--name", name, "--limit", str(limit)),
        ready=lambda: _is_online(ports, name),
        environment={
            TRACKING_VARIABLE: ports.mlflow_url,
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        },
    )


def watcher(ports: Ports, drops: Path, config: str = "") -> Service:
    """What turns data drops into runs.

    Args:
        ports: of the servers.
        drops: holds the inbox.
        config: file of the runs' base, method and training; empty: the defaults.

    Returns:
        What to run.
    """
    options = ("--config", str(Path(config).expanduser().resolve())) if config else ()
    return Service(
        "watcher",
        _python("flows.cli.main", "watch", str(drops), *options),
        ready=(drops / "inbox").is_dir,
        environment={"PREFECT_API_URL": ports.prefect_api},
    )


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False


def _is_online(ports: Ports, name: str) -> bool:
    try:
        reply = httpx.post(f"{ports.prefect_api}/work_pools/{POOL}/workers/filter", json={}, timeout=5)
        return any(item["name"] == name and item["status"] == "ONLINE" for item in reply.raise_for_status().json())
    except (httpx.HTTPError, ValueError):
        return False
