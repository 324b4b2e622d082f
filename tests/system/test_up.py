"""`mannerism up` whole: real servers, a real worker, deaths and the end. Slow; run by make test-system."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from deployments.apply import LIGHT_POOL, POOL, PREFECT_FILE
from deployments.automations import UNSTARTED, ZOMBIES
from deployments.check import declared_deployments
from flows.environment import UP_FILE
from flows.services import Ports
from pipeline_lib.run_config import config_text
from tests.steps.tiny import options, small_clip, tiny_config
from tests.system.servers import DEPLOYMENT, Up, free_port, parameters, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    template = folder / "drops.yaml"
    template.write_text(config_text(tiny_config(tiny_folder, [])))
    service = Up(folder / "state", "--drop-config", str(template))
    try:
        service.wait()
        yield service
    finally:
        service.kill()


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
    (done,) = wait_for(lambda: list((drops / "done").iterdir()), 420, "the drop's end")
    assert (done / "media" / "dropped.mp4").is_file()
    assert "dropped" in up.tracked()
    models = httpx.get(
        f"{up.ports.mlflow_url}/api/2.0/mlflow/registered-models/get", params={"name": "dropped"}, timeout=20
    )
    assert models.is_success, models.text
    (reason,) = (drops / "rejected").glob("*/reason.json")
    assert "unknown key `sed`" in reason.read_text()


def test_an_event_of_somebody_else_starts_a_run_with_numbers_that_are_numbers(up: Up) -> None:
    payload = json.dumps({"clip": "/nowhere/wolf.mp4", "concept": "grey wolf", "steps": 7, "seed": 11})
    event = ("mannerism.clip.arrived", "--resource-id", "mannerism.clip.wolf", "--payload", payload)
    done = up.command("prefect", "event", "emit", *event, PREFECT_API_URL=up.ports.prefect_api)
    assert done.returncode == 0, done.stdout + done.stderr

    def started() -> list[dict[str, Any]]:
        return [run for run in up.flow_runs() if run["parameters"].get("config", {}).get("seed") == 11]

    (run,) = wait_for(started, 420, "a run of the event")
    config = run["parameters"]["config"]
    assert config["concept"] == {"inputs": ["/nowhere/wolf.mp4"], "name": "grey wolf", "subject": ""}
    settings = {"identity_steps": 7, "motion_steps": 7}
    assert config["method"] == {"name": "set_and_sequence", "preset": "pocket", "settings": settings}
    assert [type(value) for value in (config["seed"], *config["method"]["settings"].values())] == [int, int, int]
    (ended,) = wait_for(lambda: [run for run in started() if run["state_type"] == "FAILED"], 240, "its end")
    assert "/nowhere/wolf.mp4" in ended["state"]["message"]


def test_what_is_declared_is_there_once(up: Up) -> None:
    done = up.command("deployments.apply", PREFECT_API_URL=up.ports.prefect_api)
    assert done.returncode == 0, done.stdout + done.stderr
    declared = {item["name"]: item for item in declared_deployments(PREFECT_FILE)}
    deployments = up.ask("deployments")
    assert sorted(item["name"] for item in deployments) == sorted(declared)
    for item in deployments:
        known = {schedule["slug"]: schedule["active"] for schedule in item["schedules"]}
        assert known == {each["slug"]: False for each in declared[item["name"]].get("schedules", [])}
    automations = {item["name"]: item["enabled"] for item in up.ask("automations")}
    triggers = [trigger["name"] for item in declared.values() for trigger in item.get("triggers", [])]
    assert automations == dict.fromkeys([ZOMBIES, UNSTARTED, *triggers], True)
    assert {pool["name"]: pool["status"] for pool in up.ask("work_pools")} == {POOL: "READY", LIGHT_POOL: "READY"}


def test_a_dead_child_is_started_again(up: Up) -> None:
    (server,) = [
        process for process in up.children() if "mlflow" in process.cmdline() and "server" in process.cmdline()
    ]
    server.kill()
    wait_for(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE, 60, "the death")

    def answers() -> bool:
        try:
            return httpx.get(f"{up.ports.mlflow_url}/health", timeout=2).is_success
        except httpx.HTTPError:
            return False

    wait_for(answers, 300, "another MLflow server")
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
    try:
        first.wait()
    finally:
        first.kill()
    wait_for(lambda: not first.children(), 120, "the guard's work")
    (first.state / UP_FILE).unlink()  # left behind; the second one writes its own
    second = Up(tmp_path / "state")
    try:
        second.wait()
        assert second.end() == 0
    finally:
        second.kill()
