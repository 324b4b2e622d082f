"""`up`: the servers, a worker and all deployments, for as long as the command runs."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass

from filelock import FileLock, Timeout

from flows.cli.output import put
from flows.cli.watch import drops_template
from flows.environment import UP_FILE, UP_LOCK, prepare_environment
from flows.guard import end_runs, guarded
from flows.services import WATCHER, Ports, light_worker, mlflow_server, prefect_server, watcher, worker
from pipeline_lib.drops.places import inbox_of
from pipeline_lib.errors import ConfigError
from pipeline_lib.processes.supervisor import Supervisor
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.storage import write_atomic

DATABASE_VARIABLES = ("MANNERISM_PREFECT_DATABASE", "MANNERISM_MLFLOW_DATABASE")


@dataclass(frozen=True, kw_only=True)
class UpRequest:
    """What a person asked for.

    Attributes:
        ports: of the servers.
        at_once: flow runs that load models; None leaves the server's limits as they are.
        prefect_database: empty for SQLite in the state folder.
        mlflow_database: likewise.
        drops: folder or URL of the inbox; empty: in the state folder.
        drop_config: base, method and training of runs that come of drops; empty: the defaults.
        notify: notification block that is told of failed runs; empty leaves that to the server.
    """

    ports: Ports
    at_once: int | None = None
    prefect_database: str = ""
    mlflow_database: str = ""
    drops: str = ""
    drop_config: str = ""
    notify: str = ""


def bring_up(request: UpRequest) -> None:
    """Starts everything, prints the addresses, and watches until Ctrl-C; ends everything then.

    Args:
        request: ports and databases.

    Raises:
        ConfigError: a port is taken, the state folder is up already, or runs of drops cannot be as they are to be.
        ResourceError: a server does not start, or a deployment is refused.
    """
    state = StateFolder.open()
    state.make()
    lock = FileLock(state.root / UP_LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"{state.root} is up already", fix="one `up` serves a state folder; see its terminal"
        ) from None
    try:
        (state.root / UP_FILE).unlink(missing_ok=True)  # of one that was killed
        drops_template(request.drop_config)
        request.ports.check_free()
        prepare_environment(state)
        os.environ["PREFECT_API_URL"] = request.ports.prefect_api
        for name in DATABASE_VARIABLES:
            os.environ.pop(name, None)  # read by now; their passwords are nothing for workers and runs
        with guarded(everything=True):
            _serve(request, state)
    except KeyboardInterrupt:
        put("down")
    finally:
        lock.release()


def _serve(request: UpRequest, state: StateFolder) -> None:
    started, ports = time.monotonic(), request.ports
    supervisor = Supervisor(state.logs, put)
    try:
        prefect = prefect_server(ports, request.prefect_database)
        supervisor.launch(prefect, mlflow_server(ports, state, request.mlflow_database))
        _import_flows()
        supervisor.wait(prefect.name)
        _deploy(request)
        supervisor.launch(worker(ports), light_worker(ports))
        supervisor.launch(watcher(ports, request.drops, request.drop_config))
        supervisor.wait()
        addresses = {"prefect": ports.prefect_api, "mlflow": ports.mlflow_url}
        write_atomic(state.root / UP_FILE, json.dumps(addresses))
        put(f"up in {time.monotonic() - started:.0f} s; Ctrl-C ends it")
        put(f"  prefect  {ports.prefect_ui}")
        put(f"  mlflow   {ports.mlflow_url}")
        put(f"  inbox    {inbox_of(request.drops, state)}")
        put(f"  state    {state.root}")
        put(f"  logs     {state.logs}")
        supervisor.watch(lambda: False)
    finally:
        (state.root / UP_FILE).unlink(missing_ok=True)
        try:
            put("stopping; what trains writes a checkpoint first")
            supervisor.end(WATCHER)  # which would try again what ends now
            while end_runs(str(os.getpid())):
                pass  # a run that waited for one that has ended may have begun meanwhile
        finally:
            supervisor.close()


def _import_flows() -> None:
    """While the servers start: it takes as long."""
    from deployments.apply import PREFECT_FILE
    from deployments.check import checked_deployments

    checked_deployments(PREFECT_FILE)


def _deploy(request: UpRequest) -> None:
    from deployments.apply import apply

    apply(at_once=request.at_once, notify=request.notify)
