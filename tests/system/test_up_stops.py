"""`up` is stopped, or dies, while a run trains: no process is left, no page is open, the run goes on. Slow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.environment import UP_FILE
from pipeline_lib.steps.state import StateFolder
from tests.steps.tiny import small_clip, tiny_config
from tests.system.flow_runs import Run, accepted, started
from tests.system.servers import DEPLOYMENT, Up, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(2400)]

STEPS, EVERY = 2500, 20


@contextmanager
def up_on(state: Path) -> Iterator[Up]:
    (state.parent / "tmp").mkdir(exist_ok=True)
    (state / UP_FILE).unlink(missing_ok=True)  # of one that was killed; this one writes its own
    service = Up(state, TMPDIR=str(state.parent / "tmp"))  # device locks of its own
    try:
        service.wait()
        yield service
    finally:
        service.kill()


def checkpoints(state: Path) -> set[float]:
    """When the checkpoints that are there were written."""
    return {path.stat().st_mtime for path in state.glob("store/work/stage/*/checkpoint.safetensors")}


def pages(state: Path) -> dict[str, str]:
    """Names of the runs in MLflow's database, with their status; no server is asked."""
    client = MlflowClient(StateFolder.open(state).mlflow_database)
    experiment = client.get_experiment_by_name("mannerism")
    assert experiment is not None
    return {run.info.run_name: run.info.status for run in client.search_runs([experiment.experiment_id])}


def retried(run: Run, up: Up) -> Run:
    """The same flow run, once somebody has pressed Retry."""
    again = Run(up, run.id)
    wait_for(lambda: again.state["type"] == "CRASHED", 180, f"Crashed, but {again.state}")
    state = {"type": "SCHEDULED", "name": "AwaitingRetry"}
    accepted(f"{up.ports.prefect_api}/flow_runs/{run.id}/set_state", {"state": state, "force": True})
    return again


def nothing_is_left(up: Up) -> bool:
    return not up.children()


def resumed(run: Run) -> list[int]:
    """The steps from which Stage I went on, as the run's log in Prefect tells them."""
    told = (re.fullmatch(r"train-identity: goes on from step (\d+)", line["message"]) for line in run.asked("logs"))
    return [int(found[1]) for found in told if found]


def test_a_run_goes_on_after_a_ctrl_c_and_after_the_death_of_up(tmp_path: Path, tiny_folder: Path) -> None:
    state = tmp_path / "state"
    settings = (f"method.settings.identity_steps={STEPS}", f"training.checkpoint_every={EVERY}")
    config = tiny_config(tiny_folder, [small_clip(tmp_path / "stopped.mp4")], *settings)
    with up_on(state) as up:
        run = started(up, config)
        wait_for(lambda: checkpoints(state), 500, "a checkpoint")
        assert up.end() == 0
        assert nothing_is_left(up)
    assert pages(state) == {"stopped": "KILLED", "identity": "KILLED"}
    before = checkpoints(state)
    assert before

    with up_on(state) as up:
        run = retried(run, up)
        # Prefect's client sends the log by the batch, every two seconds: a death before then takes the line along.
        wait_for(lambda: resumed(run), 500, "the log's line about where the stage goes on")
        before |= checkpoints(state)
        wait_for(lambda: checkpoints(state) - before, 500, "another checkpoint")
        up.kill()
        wait_for(lambda: nothing_is_left(up), 240, "the guard's work")
    assert pages(state) == {"stopped": "KILLED", "identity": "KILLED"}

    with up_on(state) as up:
        run = retried(run, up)
        run.wait("Completed", 500)
        steps = resumed(run)
        assert up.end() == 0
    assert len(steps) == 2
    assert 0 < steps[0] < steps[1]
    assert pages(state) == {"stopped": "FINISHED", "identity": "FINISHED", "motion": "FINISHED"}
    client = MlflowClient(StateFolder.open(state).mlflow_database)
    (page,) = client.search_runs(["1"], f"tags.`prefect.flow_run` = '{run.id}' AND tags.`mannerism.digest` != ''")
    assert page.data.tags["prefect.deployment"] == DEPLOYMENT.partition("/")[2]
    assert page.data.tags["prefect.url"].endswith(f"/runs/flow-run/{run.id}")
