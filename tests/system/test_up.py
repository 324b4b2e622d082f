"""`mannerism up` whole: real servers, a real worker, deaths and the end. Slow; run by make test-system."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from flows.environment import UP_FILE
from flows.guard import MARK
from flows.services import Ports
from pipeline_lib.run_config import RunConfig, config_text
from tests.steps.tiny import options, small_clip, tiny_config

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
DEPLOYMENT = "personalize/set-and-sequence-pocket"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(reached: Any, seconds: float, what: str) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = reached()
        if value:
            return value
        time.sleep(0.3)
    raise AssertionError(f"not in {seconds:.0f} s: {what}")


class Up:
    """`mannerism up` in a process of its own."""

    def __init__(self, state: Path, *options: str) -> None:
        self.state, self.ports = state, Ports(prefect=free_port(), mlflow=free_port())
        self._options = options
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
        return {**{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}, **own}

    def again(self, ports: Ports) -> tuple[int, str]:
        """A second `up` of the same state folder: exit code and what it said."""
        second = self._spawn(ports)
        said, _ = second.communicate(timeout=60)
        return second.returncode, said

    def wait(self) -> None:
        def there() -> bool:
            if self.process.poll() is not None:
                assert self.process.stdout is not None
                raise AssertionError(self.process.stdout.read())
            return (self.state / UP_FILE).is_file()

        wait_for(there, 180, "up")

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
            timeout=240,
        )

    def flow_runs(self) -> list[dict[str, Any]]:
        reply = httpx.post(f"{self.ports.prefect_api}/flow_runs/filter", json={}, timeout=20)
        runs: list[dict[str, Any]] = reply.raise_for_status().json()
        return runs

    def tracked(self) -> set[str]:
        """Names of the runs that MLflow's server knows as finished."""
        found = httpx.post(
            f"{self.ports.mlflow_url}/api/2.0/mlflow/experiments/search", json={"max_results": 9}, timeout=20
        )
        ids = [item["experiment_id"] for item in found.raise_for_status().json()["experiments"]]
        asked = {"experiment_ids": ids, "filter": "attributes.status = 'FINISHED'"}
        runs = httpx.post(f"{self.ports.mlflow_url}/api/2.0/mlflow/runs/search", json=asked, timeout=20)
        return {item["info"]["run_name"] for item in runs.raise_for_status().json().get("runs", [])}

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    template = folder / "drops.yaml"
    template.write_text(config_text(tiny_config(tiny_folder, [])))
    service = Up(folder / "state", "--drop-config", str(template))
    service.wait()
    yield service
    if service.process.poll() is None:
        service.process.kill()


def parameters(config: RunConfig) -> str:
    return json.dumps({"config": config.model_dump(mode="json", exclude_defaults=True)})


def test_a_deployment_runs_on_the_worker_and_is_tracked_by_the_server(
    up: Up, tiny_folder: Path, tmp_path: Path
) -> None:
    config = tiny_config(tiny_folder, [small_clip(tmp_path / "deployed.mp4")])
    arguments = ("prefect", "deployment", "run", DEPLOYMENT, "--params", parameters(config), "--watch")
    done = up.command(*arguments, PREFECT_API_URL=up.ports.prefect_api)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {run["state_type"] for run in up.flow_runs()} == {"COMPLETED"}
    assert config.concept_name in up.tracked()


def test_a_run_of_the_command_line_joins_the_servers(up: Up, tiny_folder: Path, tmp_path: Path) -> None:
    before = len(up.flow_runs())
    clip = small_clip(tmp_path / "joined.mp4")
    done = up.command("flows.cli.main", "run", str(clip), *options(tiny_folder), "--json")
    assert done.returncode == 0, done.stderr
    assert len(up.flow_runs()) == before + 1
    assert "joined" in up.tracked()


def test_a_clip_in_the_inbox_ends_as_a_registered_concept(up: Up) -> None:
    drops = up.state / "drops"
    broken = drops / "inbox" / "broken"
    broken.mkdir()
    (broken / "concept.yaml").write_text("sed: 1")
    small_clip(broken / "clip.mp4")
    small_clip(drops / "inbox" / ".dropped.mp4").rename(drops / "inbox" / "dropped.mp4")
    (done,) = wait_for(lambda: list((drops / "done").iterdir()), 180, "the drop's end")
    assert (done / "media" / "dropped.mp4").is_file()
    assert "dropped" in up.tracked()
    models = httpx.get(
        f"{up.ports.mlflow_url}/api/2.0/mlflow/registered-models/get", params={"name": "dropped"}, timeout=20
    )
    assert models.is_success, models.text
    (reason,) = (drops / "rejected").glob("*/reason.json")
    assert "unknown key `sed`" in reason.read_text()


def test_what_is_declared_is_there_once(up: Up) -> None:
    api = up.ports.prefect_api
    done = up.command("deployments.apply", PREFECT_API_URL=api)
    assert done.returncode == 0, done.stdout + done.stderr
    deployments = httpx.post(f"{api}/deployments/filter", json={}, timeout=20).json()
    assert [item["name"] for item in deployments] == [DEPLOYMENT.partition("/")[2]]
    (automation,) = httpx.post(f"{api}/automations/filter", json={}, timeout=20).json()
    assert automation["enabled"]


def test_a_dead_child_is_started_again(up: Up) -> None:
    (server,) = [
        process for process in up.children() if "mlflow" in process.cmdline() and "server" in process.cmdline()
    ]
    server.kill()
    wait_for(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE, 30, "the death")

    def answers() -> bool:
        try:
            return httpx.get(f"{up.ports.mlflow_url}/health", timeout=2).is_success
        except httpx.HTTPError:
            return False

    wait_for(answers, 90, "another MLflow server")
    assert all(process.pid != server.pid for process in up.children())


def test_a_state_folder_is_up_once_and_a_taken_port_is_told(up: Up, tmp_path: Path) -> None:
    code, said = up.again(Ports(prefect=free_port(), mlflow=free_port()))
    assert code == 2
    assert "is up already" in said
    assert "Traceback" not in said
    where = ("--port", str(up.ports.prefect), "--mlflow-port", str(free_port()))
    done = up.command("flows.cli.main", "up", *where, MANNERISM_STATE=str(tmp_path / "other"))
    assert done.returncode == 2
    assert f"port {up.ports.prefect} is taken" in done.stderr


def test_ctrl_c_ends_all(up: Up) -> None:
    assert up.children()
    assert up.end() == 0
    assert not up.children()
    assert not (up.state / UP_FILE).exists()


def test_killed_nothing_is_left_and_it_comes_up_again(tmp_path: Path) -> None:
    first = Up(tmp_path / "state")
    first.wait()
    first.process.kill()
    wait_for(lambda: not first.children(), 60, "the guard's work")
    first.process.wait()
    (first.state / UP_FILE).unlink()  # left behind; the second one writes its own
    second = Up(tmp_path / "state")
    second.wait()
    assert second.end() == 0
