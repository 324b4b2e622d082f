"""Batches by the command line: real runs of a tiny base, one concept of three broken; and the gate at their end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mlflow import MlflowClient

from pipeline_lib.records import Decision
from pipeline_lib.steps.batch import BatchFolder, BatchRecord
from pipeline_lib.steps.gate import DECISION_TAG, GATE_TAG, REASON_TAG, evidence_tag
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.tracking.concept_registry import ConceptRegistry
from tests.flows.conftest import command
from tests.steps.tiny import SETTINGS, small_clip, small_images

pytestmark = pytest.mark.system

QUICK = (
    "method.settings.identity_steps=2",
    "method.settings.motion_steps=2",
    "samples.num_inference_steps=1",
    "training.device=cpu",
)


class Batched(NamedTuple):
    arguments: list[str]
    folder: Path
    code: int
    errors: str
    result: dict[str, Any]

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["concept"]: row for row in self.result["rows"]}


def batched(arguments: list[str], folder: Path) -> Batched:
    code, output, errors = command(arguments)
    return Batched(arguments, folder, code, errors, json.loads(output.splitlines()[-1]))


def settings(*more: str) -> list[str]:
    return [part for text in (*SETTINGS, *QUICK, *more) for part in ("--set", text)]


@pytest.fixture(scope="module")
def three(state: StateFolder, tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Batched:
    """A clip, a folder of images that names itself, and a broken clip, two at a time."""
    folder = tmp_path_factory.mktemp("zoo")
    small_clip(folder / "fox.mp4")
    small_images(folder / "pictures")
    (folder / "pictures" / "concept.yaml").write_text("name: owl\nsubject: snowy owl\n")
    (folder / "torn.mp4").write_bytes(b"no video at all" * 20)
    (folder / "notes.txt").write_text("not a concept")
    arguments = ["batch", str(folder), "--at-once", "2", "--json", *settings(f"base.source={tiny_folder}")]
    return batched(arguments, folder)


def test_one_failure_stops_no_other_and_is_told(three: Batched) -> None:
    assert three.code == 1
    assert {name: row["status"] for name, row in three.rows.items()} == {"fox": "done", "owl": "done", "torn": "failed"}
    assert "torn.mp4" in three.rows["torn"]["reason"]
    assert "Traceback" not in three.errors
    assert "torn: failed" in three.errors
    for name in ("fox", "owl"):
        assert Path(three.rows[name]["report"]).is_file()
    assert three.rows["fox"]["scores"]
    assert any("owl has no champion" in note for note in three.rows["owl"]["notes"]), "pictures alone, no encoder"


def test_the_report_shows_every_concept(three: Batched, state: StateFolder) -> None:
    page = Path(three.result["report"])
    text = page.read_text()
    assert BatchRecord.model_validate_json(page.with_name("batch.json").read_bytes()).batch_id == page.parent.name
    for row in three.result["rows"]:
        assert row["concept"] in text
        if row["run_id"] and row["status"] == "done":
            assert (page.parent / f"../../runs/{row['run_id']}/report.html").resolve().is_file()
            assert f"../../runs/{row['run_id']}/report.html" in text
    assert text.count("data:image/png") == 2, "a strip for each concept that is done"
    assert "http" not in text.replace("http-equiv", "")


def test_mlflow_finds_the_runs_of_a_batch(three: Batched, state: StateFolder) -> None:
    client = MlflowClient(state.mlflow_uri)
    experiment = client.get_experiment_by_name("mannerism")
    runs = client.search_runs([experiment.experiment_id], f"tags.`mannerism.batch` = '{three.result['batch_id']}'")
    names = {run.info.run_name for run in runs}
    assert {"fox", "owl"} < names
    (own,) = [run for run in runs if run.info.run_name.startswith("batch ")]
    assert (own.data.metrics["done"], own.data.metrics["failed"]) == (2, 1)
    assert {file.path for file in client.list_artifacts(own.info.run_id)} >= {"batch.html", "batch.json"}


def test_each_concept_is_a_flow_run_of_its_own(three: Batched) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        runs = {run.name: run for run in client.read_flow_runs(limit=200)}
        assert str(runs["owl"].state_name) == "Completed"
        assert runs["owl"].parent_task_run_id is not None
        (batch,) = [run for run in runs.values() if client.read_flow(run.flow_id).name == "batch"]
    assert (batch.state_name, batch.state.message) == ("Failed", "2 of 3 concepts done; torn failed")


def test_again_does_only_what_is_missing(three: Batched, state: StateFolder) -> None:
    (three.folder / "torn.mp4").unlink()
    again = batched(three.arguments, three.folder)
    assert again.code == 0
    assert {row["found"] for row in again.rows.values()} == {True}
    assert {row["status"] for row in again.rows.values()} == {"done"}
    folder = BatchFolder(state, three.folder.name, [row["run_id"] for row in again.rows.values()])
    record = folder.record()
    assert record is not None
    assert record.starts == 1, "other concepts are another batch"


def test_the_gate_looks_at_every_new_version(three: Batched, state: StateFolder, tiny_folder: Path) -> None:
    registry = ConceptRegistry(state.mlflow_uri)
    champion = registry.find("fox")
    first = Decision.model_validate_json(champion.tags[DECISION_TAG])
    assert (champion.number, first.against, first.passed) == (1, "base", True)
    assert any("it is the champion now" in note for note in three.rows["fox"]["notes"])
    again = ["batch", str(three.folder / "fox.mp4"), "--json", *settings(f"base.source={tiny_folder}", "seed=1")]
    second = batched(again, three.folder)
    assert second.code == 0, second.errors
    assert registry.find("fox").number == 1, "two prompts are too few to tell"
    (_, challenger) = registry.versions("fox")
    assert challenger.tags[GATE_TAG] == "refused"
    assert "cannot be told from the champion" in challenger.tags[REASON_TAG]
    decision = Decision.model_validate_json(challenger.tags[DECISION_TAG])
    assert decision.comparisons
    assert all(one.num_pairs > 0 for one in decision.comparisons), "equal prompts and seeds are pairs"
    assert any("fox@1 stays the champion" in note for note in second.rows["fox"]["notes"])


def test_champions_are_scored_again_where_their_scores_are_of_yesterday(three: Batched, state: StateFolder) -> None:
    from flows.reevaluate import reevaluate

    registry = ConceptRegistry(state.mlflow_uri)
    noted = registry.find("owl@1").tags[evidence_tag("evaluate")]
    registry.note(registry.find("owl@1"), {evidence_tag("evaluate"): "of other encoders"})
    ended = reevaluate(["fox", "owl@1"], return_state=True)
    rows = {row["concept"]: row for row in ended.result()["rows"]}
    assert {name: row["status"] for name, row in rows.items()} == {"fox@1": "found", "owl@1": "scored"}
    again = registry.find("owl@1")
    assert again.tags[evidence_tag("evaluate")] == noted
    client = MlflowClient(state.mlflow_uri)
    experiment = client.get_experiment_by_name("mannerism").experiment_id
    (logged,) = client.search_runs([experiment], "tags.`mannerism.kind` = 'reevaluation'")
    assert logged.data.metrics.keys() == again.scores.keys()
    assert logged.data.metrics["temporal_flickering"] == pytest.approx(rows["owl@1"]["temporal_flickering"])
