"""The flow by the command line: worker child, Prefect's states, MLflow's runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from mlflow import MlflowClient

from pipeline_lib.personalize import run_in_process
from pipeline_lib.run_config import load_config
from pipeline_lib.steps.run_folder import RunFolder
from pipeline_lib.steps.state import StateFolder
from tests.flows.conftest import CommandRun, command
from tests.steps.tiny import IDENTITY_STEPS, MOTION_STEPS, STEPS


@pytest.fixture(scope="module")
def client(command_run: CommandRun) -> MlflowClient:
    return MlflowClient(command_run.state.mlflow_uri)


@pytest.fixture(scope="module")
def parent(command_run: CommandRun, client: MlflowClient) -> Any:
    return client.get_run(command_run.result["tracking"]["run"])


@pytest.fixture(scope="module")
def children(client: MlflowClient, parent: Any) -> dict[str, Any]:
    runs = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    return {run.info.run_name: run for run in runs}


def task_states(flow_run: str = "red") -> list[dict[str, str]]:
    """Task run name to state name, of each flow run of that name, oldest first."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as prefect:
        found = []
        for run in prefect.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_ASC):
            if run.name != flow_run:
                continue
            tasks = prefect.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
            found.append({task.name: str(task.state_name) for task in tasks})
        return found


def _first_and_last(runs: list[dict[str, str]]) -> list[dict[str, str]]:
    """The states of the steps' tasks in the first and in the last flow run."""
    return [{name: state for name, state in run.items() if name in STEPS} for run in (runs[0], runs[-1])]


def test_the_last_line_is_one_object_with_all_that_scripts_need(command_run: CommandRun) -> None:
    result = command_run.result
    assert tuple(result["seconds"]) == STEPS
    assert all(seconds > 0 for seconds in result["seconds"].values())
    assert {"base", "personalised"} <= set(result["scores"])
    for name in ("run_dir", "report", "lora", "concept"):
        assert Path(result[name]).exists()
    assert Path(result["run_dir"]).is_relative_to(command_run.state.root)


def test_the_command_is_quiet_but_for_progress(command_run: CommandRun) -> None:
    assert command_run.output.count("\n") == 1
    assert "Traceback" not in command_run.errors
    assert "prefect" not in command_run.errors.lower()


def test_the_first_run_made_and_a_second_flow_run_found(command_run: CommandRun) -> None:
    from flows.personalize import personalize

    config = load_config(Path(command_run.result["run_dir"]) / "config.yaml")
    log = Path(command_run.result["run_dir"]) / "run.log"
    before = log.read_bytes()
    result = personalize(config)
    assert result["found"]
    assert set(result["seconds"].values()) == {0.0}
    assert log.read_bytes() == before, "no worker was started"
    expected = [dict.fromkeys(STEPS, "Completed"), dict.fromkeys(STEPS, "Cached")]
    # The server learns of task runs from events, some time after the flow has ended.
    until = time.monotonic() + 60
    while (told := _first_and_last(task_states())) != expected and time.monotonic() < until:
        time.sleep(0.5)
    assert told == expected


def test_a_second_command_finds_all_without_worker_or_server(command_run: CommandRun) -> None:
    flow_runs = len(task_states())
    code, output, _ = command(command_run.arguments)
    result = json.loads(output.splitlines()[-1])
    assert code == 0
    assert result["found"]
    assert result["scores"] == command_run.result["scores"]
    assert len(task_states()) == flow_runs


def test_worker_and_caller_make_the_same_bits(command_run: CommandRun, tmp_path: Path) -> None:
    folder = RunFolder(command_run.state, command_run.result["run_id"])
    here = StateFolder.open(tmp_path)
    result = run_in_process(load_config(folder.path / "config.yaml"), here, lambda _event: None)
    ours, theirs = RunFolder(here, result.run_id).record(), folder.record()
    assert ours is not None
    assert theirs is not None
    for name in set(STEPS) - {"report"}:
        assert ours.steps[name].ref == theirs.steps[name].ref, name
    assert ours.steps["report"].ref.key == theirs.steps["report"].ref.key, "both roads tell the report the same"


def test_a_page_in_mlflow_names_its_flow_run(parent: Any, children: dict[str, Any]) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as prefect:
        (run,) = (run for run in prefect.read_flow_runs() if str(run.id) == parent.data.tags["prefect.flow_run"])
    assert run.name == "red"
    assert parent.data.tags["prefect.url"].endswith(f"/runs/flow-run/{run.id}")
    assert "prefect.deployment" not in parent.data.tags, "it came of none"
    assert {child.data.tags["prefect.flow_run"] for child in children.values()} == {str(run.id)}


def test_the_server_knows_which_flow_runs_have_ended(parent: Any) -> None:
    from prefect import Flow
    from prefect.client.orchestration import get_client
    from prefect.states import Running

    from tasks.flow_runs import ended_flow_runs

    with get_client(sync_client=True) as prefect:
        goes_on = prefect.create_flow_run(Flow(lambda: None, name="goes on"), state=Running())
    ended = parent.data.tags["prefect.flow_run"]
    assert list(ended_flow_runs([ended, str(goes_on.id), str(uuid4())])) == [ended]


def test_mlflow_has_a_parent_run_and_a_child_for_each_stage(parent: Any, children: dict[str, Any]) -> None:
    assert parent.info.status == "FINISHED"
    assert parent.data.params["method.settings.rank"] == "2"
    assert parent.data.tags["mannerism.digest"]
    assert set(children) == {"identity", "motion"}
    assert {run.info.status for run in children.values()} == {"FINISHED"}


def test_every_step_is_in_mlflow_once(client: MlflowClient, children: dict[str, Any]) -> None:
    for name, steps in (("identity", IDENTITY_STEPS), ("motion", MOTION_STEPS)):
        history = client.get_metric_history(children[name].info.run_id, "loss")
        assert [metric.step for metric in history] == list(range(1, steps + 1))


def test_the_clip_is_a_data_set_and_the_videos_are_artifacts(client: MlflowClient, parent: Any) -> None:
    assert [item.dataset.name for item in parent.inputs.dataset_inputs] == ["red.mp4"]
    assert {entry.path for entry in client.list_artifacts(parent.info.run_id)} >= {"samples", "report.html", "images"}
    models = {entry.path for entry in client.list_artifacts(parent.info.run_id, "samples")}
    assert models == {"samples/base", "samples/personalised"}


def test_each_stage_is_a_model_and_the_concept_is_registered(client: MlflowClient, parent: Any) -> None:
    models = client.search_logged_models([parent.info.experiment_id])
    assert {model.tags["mannerism.kind"] for model in models} == {"identity", "motion", "concept"}
    assert {model.status.value for model in models} == {"READY"}
    kinds = {f"models:/{model.model_id}": model.tags["mannerism.kind"] for model in models}
    follows = {model.tags["mannerism.kind"]: kinds.get(model.tags["mannerism.follows"]) for model in models}
    assert follows == {"identity": None, "motion": "identity", "concept": "motion"}
    version = client.get_model_version_by_alias("red", "candidate")
    assert str(version.version) == "1"


def test_a_stage_that_takes_too_long_fails_and_names_the_setting(command_run: CommandRun) -> None:
    limit = ["--set", "training.max_stage_hours=1e-6"]
    code, output, errors = command([*command_run.arguments, *limit])
    assert code == 0, errors
    assert json.loads(output.splitlines()[-1])["found"], "the limit has no part in the result"
    code, _, errors = command([*command_run.arguments, *limit, "--set", "method.settings.identity_steps=6"])
    assert code == 1
    assert "train: not done after 0.0036 s (training.max_stage_hours=1e-06)" in errors


def test_previews_are_in_mlflow(client: MlflowClient, children: dict[str, Any]) -> None:
    entries = client.list_artifacts(children["identity"].info.run_id, "previews")
    assert [entry.path for entry in entries] == ["previews/000004.mp4"]


def test_runs_are_listed_shown_and_resumed(command_run: CommandRun) -> None:
    name = command_run.result["run_id"]
    code, output, _ = command(["runs", "--json"])
    assert code == 0
    assert name in [run["run"] for run in json.loads(output)["runs"]]
    code, output, _ = command(["show", name[:-3], "--json"])
    assert code == 0
    assert json.loads(output)["status"] == "done"
    code, output, _ = command(["show", name])
    assert "report.html" in output
    code, output, _ = command(["resume", name, "--json"])
    assert json.loads(output)["found"]


def test_export_and_generate(command_run: CommandRun, tmp_path: Path) -> None:
    name = command_run.result["run_id"]
    code, output, errors = command(
        ["export", name, "--format", "diffusers", "--motion", "0", "--out", str(tmp_path / "a.safetensors"), "--json"]
    )
    assert code == 0, errors
    assert json.loads(output)["trigger"].endswith("dog")
    whole, identity_only = Path(command_run.result["lora"]), tmp_path / "a.safetensors"
    assert identity_only.stat().st_size == pytest.approx(whole.stat().st_size, rel=0.1)
    assert identity_only.read_bytes() != whole.read_bytes()
    assert command(["export", name, "--out", str(identity_only)])[0] == 2, "nothing is overwritten"
    assert command(["export", name, "--format", "concept", "--out", str(tmp_path / "concept")])[0] == 0
    out = tmp_path / "videos"
    to = ["--out", str(out), "--json"]
    code, output, errors = command(
        ["generate", str(tmp_path / "concept"), "a {subject} in snow", "--seed", "1", "--seed", "2", *to]
    )
    assert code == 0, errors
    assert len(json.loads(output)["files"]) == len(list(out.glob("*.mp4"))) == 2


def test_preview_and_doctor_tell_what_a_config_will_use(command_run: CommandRun, tmp_path: Path) -> None:
    config = str(Path(command_run.result["run_dir"]) / "config.yaml")
    code, output, errors = command(["preview", config, "--out", str(tmp_path / "sheet.png"), "--json"])
    facts = json.loads(output)
    assert code == 0, errors
    assert (tmp_path / "sheet.png").is_file()
    assert facts["clips"][0]["prompts"]["clips"].startswith("a zwx dog")
    assert [stage["name"] for stage in facts["stages"]] == ["identity", "motion"]
    code, output, errors = command(["doctor", config, "--json"])
    facts = json.loads(output)
    assert code == 0, errors
    assert facts["config"]["training steps"] == IDENTITY_STEPS + MOTION_STEPS
    assert facts["packages"]["torch"] != "missing"


def test_prune_keeps_what_a_run_shows(command_run: CommandRun) -> None:
    code, output, _ = command(["prune", "--older-than-days", "0", "--dry-run", "--json"])
    kinds = {item["kind"] for item in json.loads(output)["pruned"] if item["place"] == "artifacts"}
    assert code == 0
    # Masks and videos only where a masked run, or `generate`, came before.
    assert kinds - {"masks", "videos"} == {"known_scores", "latents", "prior", "prior-clips"}
