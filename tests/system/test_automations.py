"""What a server does about runs that nobody looks after any more; a real one, since it takes its services."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import pytest

from deployments.automations import set_automation, unstarted, zombies
from flows.services import Ports, prefect_server
from pipeline_lib.processes.supervisor import Supervisor
from pipeline_lib.steps.state import StateFolder
from tasks.turn import LEASE_SECONDS, LIMIT
from tests.conftest import REPOSITORY
from tests.system.flow_runs import accepted
from tests.system.servers import free_port, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

WAIT = timedelta(seconds=10)  # the shortest that a server takes
PATIENCE = 120.0
"""Seconds in which what waits so long must have happened, also on a busy machine."""


class Server(NamedTuple):
    """A Prefect server, started again when it dies, asked about flow runs."""

    api: str
    pids: Callable[[], dict[str, int]]

    def kill(self) -> None:
        """Ends it and waits for the next one."""
        former = self.pids()["prefect"]
        os.kill(former, signal.SIGKILL)
        wait_for(lambda: self.pids().get("prefect", former) != former, PATIENCE, "another server")
        wait_for(self.answers, PATIENCE, "its answer")

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.api}/health", timeout=60).is_success
        except httpx.HTTPError:
            return False

    def state(self, run: str) -> dict[str, Any]:
        reply = httpx.get(f"{self.api}/flow_runs/{run}", timeout=60)
        state: dict[str, Any] = reply.raise_for_status().json()["state"]
        return state

    def started(self, *states: str) -> str:
        """The id of a flow run that nobody runs, after these states."""
        flow = accepted(f"{self.api}/flows/", {"name": "nobody's"}).json()["id"]
        run: str = accepted(f"{self.api}/flow_runs/", {"flow_id": flow}).json()["id"]
        for state in states:
            accepted(f"{self.api}/flow_runs/{run}/set_state", {"state": {"type": state}})
        return run

    def running(self) -> set[str]:
        """Ids of flow runs that are Running."""
        runs = httpx.post(f"{self.api}/flow_runs/filter", json={}, timeout=60).raise_for_status().json()
        return {run["id"] for run in runs if run["state_type"] == "RUNNING"}

    def beat(self, run: str) -> None:
        """A heartbeat, as the process of a run sends one."""
        event = {
            "occurred": datetime.now(UTC).isoformat(),
            "event": "prefect.flow-run.heartbeat",
            "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
            "id": str(uuid4()),
        }
        httpx.post(f"{self.api}/events", json=[event], timeout=60).raise_for_status()

    def slots(self) -> int:
        """How many of the limit of training are taken."""
        reply = httpx.get(f"{self.api}/v2/concurrency_limits/{LIMIT}", timeout=60)
        return int(reply.raise_for_status().json()["active_slots"])


class Killed(NamedTuple):
    """The run of a process that was killed in its turn at training, and when that was."""

    run: str
    at: float


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("automations")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

    ports = Ports(prefect=free_port())
    service = prefect_server(ports)
    own = {"PREFECT_HOME": str(folder / "server"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "true"}
    own |= {"PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "2"}  # how often it looks for leases that ran out
    supervisor, enough = Supervisor(StateFolder.open(folder).logs, print), threading.Event()
    watching = threading.Thread(target=supervisor.watch, args=(enough.is_set,))

    async def prepare() -> None:
        async with PrefectClient(ports.prefect_api) as client:
            await client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=2))
            for automation in (zombies(WAIT), unstarted(WAIT)):
                await set_automation(client, automation)

    try:
        supervisor.start(replace(service, environment={**service.environment, **own}))
        watching.start()
        asyncio.run(prepare())
        yield Server(ports.prefect_api, supervisor.pids)
    finally:
        enough.set()
        if watching.ident is not None:
            watching.join()
        supervisor.close()


@pytest.fixture(scope="module")
def killed(server: Server, folder: Path) -> Killed:
    return killed_in_its_turn(server, folder)


def killed_in_its_turn(server: Server, folder: Path) -> Killed:
    """A run that nobody looks after and whose process is killed while it holds a slot."""
    log, before, known = folder / "silent.log", server.slots(), server.running()
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.silent_program"],
            cwd=REPOSITORY,
            env={
                **os.environ,
                "PREFECT_API_URL": server.api,
                "PREFECT_HOME": str(folder / "client"),
                "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            },
            stdout=said,
            stderr=said,
        )
    try:
        wait_for(lambda: process.poll() is not None or server.slots() > before, PATIENCE, "its turn")
        assert process.poll() is None, log.read_text()
    finally:
        process.kill()
        process.wait()
    (run,) = server.running() - known
    return Killed(run, time.monotonic())


def test_a_run_whose_heartbeats_stop_is_crashed_and_one_whose_go_on_is_not(server: Server, killed: Killed) -> None:
    alive = server.started("PENDING", "RUNNING")
    since = time.monotonic()

    def crashed() -> bool:
        server.beat(alive)
        return bool(server.state(killed.run)["type"] == "CRASHED")

    wait_for(crashed, PATIENCE, "the end of a run whose process is gone")
    assert server.state(killed.run)["message"].startswith("no heartbeat for 10 s")
    wait_for(lambda: crashed() and time.monotonic() - since > 2 * WAIT.total_seconds(), PATIENCE, "more heartbeats")
    assert server.state(alive)["type"] == "RUNNING"


def test_a_run_that_never_begins_is_crashed_and_one_that_began_is_not(server: Server) -> None:
    begun, never = server.started("PENDING", "RUNNING"), server.started("PENDING")
    wait_for(lambda: server.state(never)["type"] == "CRASHED", PATIENCE, "the end of a run that never began")
    assert server.state(never)["message"].startswith("not running 10 s after a worker took it")
    assert server.state(begun)["type"] == "RUNNING"


def test_the_slot_of_a_killed_training_is_free_when_its_lease_has_run_out_also_if_the_server_died_meanwhile(
    server: Server, folder: Path
) -> None:
    killed = killed_in_its_turn(server, folder)
    server.kill()
    assert server.slots() >= 1, "the database remembers"
    left = max(0.0, killed.at + LEASE_SECONDS - time.monotonic())
    wait_for(lambda: server.slots() == 0, left + PATIENCE, "a free slot")
