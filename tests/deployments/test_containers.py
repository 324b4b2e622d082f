"""Files of containers, by their own validators: nothing here can run them."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from deployments.apply import LIGHT_POOL, POOL
from pipeline_lib.steps.state import StateFolder
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "deployments"
COMPOSE_FILES = (FOLDER / "compose.yaml", FOLDER / "docker" / "gpu.yaml")
KUBERNETES = "1.34"
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+[\w.-]*$")


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE_FILES[0].read_text())
    return loaded


def template(kind: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / kind / "pool.json").read_text())
    return loaded


def configured(kind: Any, name: str, values: dict[str, Any]) -> Any:
    """The worker's own configuration of a job; a client is asked for blocks alone, and there are none."""
    from prefect.client.orchestration import PrefectClient

    made = kind.from_template_and_values(template(name), values, client=PrefectClient("http://127.0.0.1:9/api"))
    configuration = asyncio.run(made)
    configuration.prepare_for_flow_run(flow_run())
    return configuration


def flow_run() -> Any:
    from prefect.client.schemas.objects import FlowRun

    return FlowRun(name="wise-wolf", flow_id="00000000-0000-0000-0000-000000000001")


def test_the_dockerfile_is_linted() -> None:
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, "Dockerfile"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_is_pinned_and_runs_as_nobody_in_particular() -> None:
    lines = (REPOSITORY / "Dockerfile").read_text().splitlines()
    assert PINNED.match(next(line for line in lines if line.startswith("FROM ")).split()[1])
    assert "USER 1000:1000" in lines
    for line in lines:
        if "pip install" in line:
            assert "--constraint constraints.txt" in line


def test_what_stays_here_is_not_sent_to_the_builder() -> None:
    ignored = set((REPOSITORY / ".dockerignore").read_text().splitlines())
    assert {".git", ".venv", "mannerism_state", "deployments/.env", "tests"} <= ignored
    kept = {"flows", "tasks", "pipeline_lib", "deployments", "prefect.yaml", "pyproject.toml", "constraints.txt"}
    assert not kept & ignored


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_compose_files_fit_the_specification(path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_services_wait_for_what_is_there_and_can_tell_their_health() -> None:
    services = compose()["services"]
    own_health = {"prefect"}  # the image's
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in services, name
            checked = services[other].get("healthcheck", {})
            if how["condition"] == "service_healthy":
                assert "test" in checked or other in own_health, f"{name} waits for {other}"
        mounted = [volume.partition(":")[0] for volume in service.get("volumes", [])]
        assert all(volume in compose()["volumes"] or volume.startswith("./") for volume in mounted), name
        assert all((FOLDER / volume).is_file() for volume in mounted if volume.startswith("./")), name
    assert yaml.safe_load(COMPOSE_FILES[1].read_text())["services"].keys() <= services.keys()


def test_workers_serve_the_pools_that_are_applied() -> None:
    served = [" ".join(service.get("command", [])) for service in compose()["services"].values()]
    for pool in (POOL, LIGHT_POOL):
        assert any(f"--pool {pool} " in command for command in served)
    assert not any("--limit" in command for command in served), "a worker with a limit dies of a quick retry"


def test_nothing_listens_to_other_machines_and_no_password_is_a_default() -> None:
    text = COMPOSE_FILES[0].read_text()
    for name, service in compose()["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert PINNED.match(service["image"]) or service["image"].startswith("${MANNERISM_IMAGE"), name
    example = dict(
        line.split("=", 1) for line in (FOLDER / ".env.example").read_text().splitlines() if re.match("[A-Z_]+=", line)
    )
    used = {match[1]: match[2] for match in re.finditer(r"\$\{(\w+)(:[?-][^}]*)\}", text)}
    assert used.keys() == example.keys()
    for name, default in used.items():
        secret = name.endswith(("PASSWORD", "KEY"))
        assert default.startswith(":?" if secret else ":-"), name
        assert example[name] == ("" if secret else default[2:]), name
    assert "deployments/.env" in (REPOSITORY / ".gitignore").read_text().splitlines()


def test_settings_and_options_of_the_servers_exist() -> None:
    from mlflow.cli import server
    from prefect import settings

    for name, service in compose()["services"].items():
        for variable in service.get("environment", {}):
            if variable.startswith("PREFECT_"):
                assert hasattr(settings, variable), f"{name}: {variable}"
    options = [word for word in compose()["services"]["mlflow"]["command"] if word.startswith("--")]
    known = {option for parameter in server.params for option in parameter.opts}
    assert set(options) <= known


def configured_docker(**values: Any) -> Any:
    from prefect_docker.worker import DockerWorkerJobConfiguration

    return configured(DockerWorkerJobConfiguration, "docker", values)


def test_the_docker_pool_makes_a_container_with_a_gpu_and_the_state() -> None:
    from docker.models.containers import _create_container_args

    made = configured_docker(env={"DO_NOT_TRACK": "true"})
    state, locks = made.volumes
    assert state == "mannerism_state:/state"
    assert made.env["MANNERISM_STATE"] == "/state"
    assert made.env["DO_NOT_TRACK"] == "true"
    container = {"image": made.image, "command": made.command, "version": "1.50", **made.container_create_kwargs}
    arguments = _create_container_args(container)
    (gpu,) = arguments["host_config"]["DeviceRequests"]
    assert (gpu["Driver"], gpu["Count"], gpu["Capabilities"]) == ("nvidia", 1, [["gpu"]])
    assert arguments["host_config"]["Init"]
    assert not container, "docker's client does not know these"
    for volume in (state, locks):
        mount = volume.removeprefix(f"{compose()['name']}_")
        assert mount.partition(":")[0] in compose()["volumes"]
        assert mount in compose()["services"]["worker"]["volumes"]
    assert made.networks == ["mannerism_default"]


def test_containers_of_a_machine_share_the_folder_of_device_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    monkeypatch.setenv("LOGNAME", "mannerism")
    locks = str(StateFolder.open(Path("/state")).locks)
    assert f"mannerism_locks:{locks}" in configured_docker().volumes
    # A volume takes its owner from the folder that the image has in its place; without one it is root's.
    made = re.search(r"install --directory --owner (\w+) --group \w+ \\\n\s+(.*)", dockerfile)
    assert made is not None
    assert made[1] == "mannerism"
    assert {locks, str(Path(locks).parent)} <= set(made[2].split())
    assert "useradd --uid 1000 --gid mannerism --create-home mannerism" in dockerfile


def kubernetes_job(**values: Any) -> dict[str, Any]:
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    job: dict[str, Any] = configured(KubernetesWorkerJobConfiguration, "kubernetes", values).job_manifest
    return job


def test_the_kubernetes_pool_makes_a_job_with_a_gpu_and_the_state() -> None:
    job = kubernetes_job(gpus=2, env={"DO_NOT_TRACK": "true"})
    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    environment = {item["name"]: item["value"] for item in container["env"]}
    assert environment["MANNERISM_STATE"] == "/state"
    assert environment["DO_NOT_TRACK"] == "true"
    claim = next(volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if volume["name"] == "state")
    space, state = yaml.safe_load_all((FOLDER / "kubernetes" / "state.yaml").read_text())
    for document in (space, state):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    assert state["metadata"]["name"] == claim
    assert state["metadata"]["namespace"] == job["metadata"]["namespace"] == space["metadata"]["name"]


def test_the_validator_of_kubernetes_would_object() -> None:
    job = kubernetes_job()
    job["spec"]["template"]["spec"]["parallelism"] = 1  # where Prefect's own template has it
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, KUBERNETES, strict=True)


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_every_variable_of_a_pool_is_used_and_every_placeholder_is_one(kind: str) -> None:
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template(kind)["job_configuration"])))
    assert used == template(kind)["variables"]["properties"].keys()
