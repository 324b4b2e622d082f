"""Flow runs of an `up` as tests ask about them: states, artifacts, logs, their page in MLflow."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from uuid import uuid4

import httpx

from pipeline_lib.run_config import RunConfig
from tests.system.servers import DEPLOYMENT, Up, wait_for

BUSY = 503  # what a server on SQLite says now and then


class Run(NamedTuple):
    """A flow run, asked about."""

    up: Up
    id: str

    @property
    def state(self) -> dict[str, Any]:
        reply = httpx.get(f"{self.up.ports.prefect_api}/flow_runs/{self.id}", timeout=60)
        state: dict[str, Any] = reply.raise_for_status().json()["state"]
        return state

    @property
    def address(self) -> str:
        return f"{self.up.ports.prefect_ui}/runs/flow-run/{self.id}"

    def asked(self, kind: str) -> list[dict[str, Any]]:
        body = {"flow_runs": {"id": {"any_": [self.id]}}}
        if kind == "logs":
            body = {"logs": {"flow_run_id": {"any_": [self.id]}}}
        reply = httpx.post(f"{self.up.ports.prefect_api}/{kind}/filter", json=body, timeout=60)
        found: list[dict[str, Any]] = reply.raise_for_status().json()
        return found

    def artifact(self, key: str) -> dict[str, Any]:
        """The latest artifact of a key; empty where there is none."""
        found = [item for item in self.asked("artifacts") if item["key"] == key]
        return max(found, key=lambda item: str(item["created"]), default={})

    def link(self, key: str) -> str:
        found = re.search(r"\]\((http.*)\)", self.artifact(key)["data"])
        assert found
        return found[1]

    def wait(self, state: str, seconds: float = 300) -> None:
        def reached() -> bool:
            now = self.state
            assert now["name"] not in {"Failed", "Crashed"} - {state}, now
            return bool(now["name"] == state)

        wait_for(reached, seconds, f"{state}, but {self.state['name']}")


def started(up: Up, config: RunConfig, **review: bool) -> Run:
    """A run of the deployment, started as its form does."""
    api = up.ports.prefect_api
    deployment = httpx.get(f"{api}/deployments/name/{DEPLOYMENT}", timeout=60).raise_for_status().json()["id"]
    parameters = {"config": config.model_dump(mode="json", exclude_defaults=True), "review": review}
    body = {"parameters": parameters, "idempotency_key": uuid4().hex}

    return Run(up, accepted(f"{api}/deployments/{deployment}/create_flow_run", body).json()["id"])


def accepted(address: str, body: dict[str, Any]) -> httpx.Response:
    """The server's answer, asked again where it was too busy."""

    def posted() -> httpx.Response | None:
        reply = httpx.post(address, json=body, timeout=60)
        return reply.raise_for_status() if reply.status_code != BUSY else None

    reply = wait_for(posted, 120, address)
    assert reply is not None
    return reply


def mlflow_status(run: Run) -> str:
    """Of the run's page in MLflow."""
    base, _, page = run.link("mlflow").partition("/#/")
    asked = {"run_id": page.rpartition("/")[2]}
    reply = httpx.get(f"{base}/api/2.0/mlflow/runs/get", params=asked, timeout=60)
    return str(reply.raise_for_status().json()["run"]["info"]["status"])
