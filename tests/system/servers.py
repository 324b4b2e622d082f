"""`mannerism up` in a process of its own: what system tests share."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from flows.environment import UP_FILE
from flows.guard import MARK
from flows.services import Ports
from pipeline_lib.run_config import RunConfig

DEPLOYMENT = "personalize/set-and-sequence-pocket"
T = TypeVar("T")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(reached: Callable[[], T], seconds: float, what: str) -> T:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = reached()
        if value:
            return value
        time.sleep(0.3)
    raise AssertionError(f"not in {seconds:.0f} s: {what}")


class Up:
    """`mannerism up` in a process of its own."""

    def __init__(self, state: Path, *options: str, **environment: str) -> None:
        self.state, self.ports = state, Ports(prefect=free_port(), mlflow=free_port())
        self._options, self._environment = options, environment
        self.process = self._spawn(self.ports)

    def _spawn(self, ports: Ports) -> subprocess.Popen[str]:
        where = ("--port", str(ports.prefect), "--mlflow-port", str(ports.mlflow))
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli.main", "up", *where, *self._options],
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def environment(self) -> dict[str, str]:
        own = {"MANNERISM_STATE": str(self.state), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        return {**others, **own, **self._environment}

    def again(self, ports: Ports) -> tuple[int, str]:
        """A second `up` of the same state folder: exit code and what it said."""
        second = self._spawn(ports)
        said, _ = second.communicate(timeout=180)
        return second.returncode, said

    def wait(self) -> None:
        def there() -> bool:
            if self.process.poll() is not None:
                assert self.process.stdout is not None
                raise AssertionError(self.process.stdout.read())
            return (self.state / UP_FILE).is_file()

        wait_for(there, 1500, "up")

    def children(self) -> list[psutil.Process]:
        """All that carry the mark of this `up`, but `up` itself."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == str(self.process.pid) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def command(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            env={**self.environment(), **more},
            capture_output=True,
            text=True,
            check=False,
            timeout=540,
        )

    def ask(self, path: str) -> list[dict[str, Any]]:
        """All that Prefect's server has of a kind, e.g. "deployments"."""
        reply = httpx.post(f"{self.ports.prefect_api}/{path}/filter", json={}, timeout=60)
        found: list[dict[str, Any]] = reply.raise_for_status().json()
        return found

    def flow_runs(self) -> list[dict[str, Any]]:
        return self.ask("flow_runs")

    def tracked(self) -> set[str]:
        """Names of the runs that MLflow's server knows as finished."""
        found = httpx.post(
            f"{self.ports.mlflow_url}/api/2.0/mlflow/experiments/search", json={"max_results": 9}, timeout=60
        )
        ids = [item["experiment_id"] for item in found.raise_for_status().json()["experiments"]]
        asked = {"experiment_ids": ids, "filter": "attributes.status = 'FINISHED'"}
        runs = httpx.post(f"{self.ports.mlflow_url}/api/2.0/mlflow/runs/search", json=asked, timeout=60)
        return {item["info"]["run_name"] for item in runs.raise_for_status().json().get("runs", [])}

    def kill(self) -> None:
        """Ends it without asking; its guard ends the rest."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(180)


def parameters(config: RunConfig) -> str:
    return json.dumps({"config": config.model_dump(mode="json", exclude_defaults=True)})
