"""MLflow, the real one, on real SQLite files."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline_lib.errors import ConfigError
from pipeline_lib.records import ClipRecord, SourceFacts
from pipeline_lib.tracking import DIGEST_TAG, FLOW_RUN_TAG, NullTracker, Tracker
from pipeline_lib.tracking.connection import WRITER_TAG
from pipeline_lib.tracking.mlflow_tracker import MlflowTracker
from pipeline_lib.tracking.tracker import RunStatus

PROGRAM = str(Path(__file__).with_name("writer_program.py"))
NASTY = "../../Füchs'  \"`\n\0:/%.."


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder whose database four processes make at once, after one was killed while making it."""
    folder = tmp_path_factory.mktemp("state with a space")
    arguments = [f"sqlite:///{folder}/new/mlflow.db", str(folder / "artifacts")]
    killed = subprocess.Popen([sys.executable, PROGRAM, *arguments, "killed early", "3"])
    while not (folder / "new" / ".mlflow.db.new" / "made.db").exists():
        assert killed.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)  # in the middle of making its tables
    killed.kill()
    killed.wait()
    assert not (folder / "new" / "mlflow.db").exists()
    writers = [subprocess.Popen([sys.executable, PROGRAM, *arguments, f"d{number}", "3"]) for number in range(4)]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0, 0]
    return folder


@pytest.fixture
def tracker(place: Path) -> Iterator[MlflowTracker]:
    yield new_tracker(place)


def new_tracker(place: Path, **options: Any) -> MlflowTracker:
    return MlflowTracker(f"sqlite:///{place}/new/mlflow.db", "concepts", place / "artifacts", **options)


def client(tracker: MlflowTracker) -> Any:
    return tracker._connection.client


def steps(tracker: Tracker, name: str) -> list[tuple[int, float]]:
    assert isinstance(tracker, MlflowTracker)
    return [(entry.step, entry.value) for entry in client(tracker).get_metric_history(tracker.run_id, name)]


def a_clip(name: str) -> ClipRecord:
    source = SourceFacts(name=name, sha256="ab", kind="video", container="mp4", codec="h264", width=64, height=32)
    return ClipRecord(
        name=name, kind="video", sources=(source,), height=32, width=32, num_frames=5, frames_per_second=8.0
    )


def test_four_processes_on_a_fresh_database_make_one_experiment(place: Path, tracker: MlflowTracker) -> None:
    with closing(sqlite3.connect(place / "new" / "mlflow.db")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("SELECT count(*) FROM experiments WHERE name = 'concepts'").fetchone() == (1,)
    runs = [tracker.find_run(f"d{number}") for number in range(4)]
    assert len(set(runs)) == 4
    assert "" not in runs
    assert {client(tracker).get_run(run).info.status for run in runs} == {"FINISHED"}
    assert tracker.find_run("d9") == ""
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_killed_writer_is_closed_and_its_run_goes_on_with_each_step_once(place: Path, tracker: MlflowTracker) -> None:
    arguments = [f"sqlite:///{place}/new/mlflow.db", str(place / "artifacts"), "killed", "0"]
    writer = subprocess.Popen([sys.executable, PROGRAM, *arguments], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    run_id = writer.stdout.readline().strip()
    own = tracker.start_run("mine", {DIGEST_TAG: "mine"}, {})
    assert tracker.close_dangling() == []
    time.sleep(0.2)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    closed = tracker.close_dangling()
    assert len(closed) == 2
    assert run_id in closed
    assert own not in closed
    assert client(tracker).get_run(run_id).info.status == "KILLED"

    resumed = new_tracker(place)
    assert resumed.find_run("killed") == run_id
    assert resumed.start_run("a run", {DIGEST_TAG: "killed"}, {"pid": 1}) == run_id
    stage = resumed.child("train")
    assert stage.run_id in closed
    assert client(tracker).get_run(stage.run_id).info.status == "RUNNING"
    before = steps(stage, "loss")
    assert 500 <= len(before) < 3000
    stage.log_metrics([("loss", float(step), step) for step in range(3000)])
    stage.end()
    resumed.end()
    tracker.end()
    assert steps(stage, "loss") == [(step, float(step)) for step in range(3000)]


def test_runs_of_other_machines_are_closed_when_their_flow_runs_have_ended(place: Path, tracker: MlflowTracker) -> None:
    """A container that is gone had a name of its own, which no other process here can ask about."""
    pages = {}
    for flow_run in ("ended", "goes on", ""):
        elsewhere = new_tracker(place)
        elsewhere.start_run(f"flow run {flow_run}", {FLOW_RUN_TAG: flow_run} if flow_run else {}, {})
        pages[flow_run] = (elsewhere.run_id, elsewhere.child("train").run_id)
        for run_id in pages[flow_run]:
            client(tracker).set_tag(run_id, WRITER_TAG, "a-container 7 1.00")
    assert not set(tracker.close_dangling()) & {run_id for pair in pages.values() for run_id in pair}
    asked: list[str] = []

    def ended(flow_runs: Sequence[str]) -> list[str]:
        asked.extend(flow_runs)
        return ["ended"]

    assert set(tracker.close_dangling(ended)) == set(pages["ended"])
    assert asked == ["ended", "goes on"]
    assert {client(tracker).get_run(run_id).info.status for run_id in pages["ended"]} == {"KILLED"}
    for run_id in (*pages["goes on"], *pages[""]):
        client(tracker).set_terminated(run_id)


def test_metrics_are_gathered_and_written_once_whatever_is_repeated(place: Path, tracker: MlflowTracker) -> None:
    tracker.start_run("once", {DIGEST_TAG: "once"}, {})
    tracker.log_metrics([("loss", 1.0, 0), ("loss", 2.0, 1), ("loss", 9.0, 1), ("grau/x", float("nan"), 0)])
    assert steps(tracker, "loss") == []
    tracker.end()
    assert steps(tracker, "loss") == [(0, 1.0), (1, 2.0)]
    assert steps(tracker, "grau/x") == [(0, pytest.approx(float("nan"), nan_ok=True))]
    again = new_tracker(place)
    again.start_run("once", {DIGEST_TAG: "once"}, {})
    again.log_metrics([("loss", 7.0, 1), ("loss", 3.0, 2), ("accuracy", 0.5, 0)])
    again.end("FAILED")
    assert steps(again, "loss") == [(0, 1.0), (1, 2.0), (2, 3.0)]
    assert client(again).get_run(again.run_id).info.status == "FAILED"


def test_stages_are_children_and_are_found_again(place: Path, tracker: MlflowTracker) -> None:
    tracker.start_run("parent", {DIGEST_TAG: "parent", "prefect.url": "http://x"}, {})
    first, second = tracker.child("train: set", {"rank": 4}), tracker.child("train: sequence")
    assert len({tracker.run_id, first.run_id, second.run_id}) == 3
    run = client(tracker).get_run(first.run_id)
    assert run.data.tags["mlflow.parentRunId"] == tracker.run_id
    assert run.data.params == {"rank": "4"}
    again = new_tracker(place)
    assert again.start_run("parent", {DIGEST_TAG: "parent"}, {}) == tracker.run_id
    assert again.child("train: set").run_id == first.run_id
    other = new_tracker(place)
    other.start_run("another", {DIGEST_TAG: "another"}, {})
    assert other.child("train: set").run_id != first.run_id


@pytest.mark.parametrize(("status", "expected"), [("KILLED", "KILLED"), ("FAILED", "FAILED"), ("SCHEDULED", "RUNNING")])
def test_a_stage_that_nobody_holds_ends_with_its_run(tracker: MlflowTracker, status: RunStatus, expected: str) -> None:
    """As where a signal comes between the opening of its page and the end of the call that opened it."""
    tracker.start_run("stopped", {}, {})
    stage, done = tracker.child("motion"), tracker.child("identity")
    done.end()
    tracker.end(status)
    assert client(tracker).get_run(stage.run_id).info.status == expected
    assert client(tracker).get_run(done.run_id).info.status == "FINISHED"
    client(tracker).set_terminated(stage.run_id)


def test_params_are_flat_short_and_kept(place: Path, tracker: MlflowTracker, caplog: pytest.LogCaptureFixture) -> None:
    params = {"stage": {"rank": 4, "targets": ["q", "k"]}, "data": [{"name": "ü"}], "long": "x" * 9000, "none": {}}
    many = {f"p{number}": number for number in range(250)}
    tracker.start_run("params", {DIGEST_TAG: "params"}, {**params, **many})
    kept = client(tracker).get_run(tracker.run_id).data.params
    assert kept["stage.rank"] == "4"
    assert kept["stage.targets"] == "['q', 'k']"
    assert kept["data.0.name"] == "ü"
    assert kept["none"] == "{}"
    assert kept["long"] == "x" * 6000
    assert len(kept) == 255
    new_tracker(place).start_run("params", {DIGEST_TAG: "params"}, {"stage": {"rank": 8}, "extra": 1})
    after = client(tracker).get_run(tracker.run_id).data.params
    assert after == {**kept, "extra": "1"}
    assert "keeps stage.rank=4, not 8" in caplog.text


def test_clip_becomes_the_dataset_input_once(tracker: MlflowTracker) -> None:
    clip = a_clip(NASTY)
    tracker.start_run("clip", {DIGEST_TAG: "clip"}, {})
    tracker.log_clip(clip)
    tracker.log_clip(clip)
    (entry,) = client(tracker).get_run(tracker.run_id).inputs.dataset_inputs
    assert ClipRecord.model_validate_json(entry.dataset.profile) == clip
    assert "\n" not in entry.dataset.name
    assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "training")]


def test_runs_of_one_clip_may_log_it_at_the_same_moment(place: Path) -> None:
    """As the runs of a comparison do: MLflow's own look and write of a dataset fail for one of two."""
    trackers = [new_tracker(place) for _ in range(4)]
    for number, tracker in enumerate(trackers):
        tracker.start_run(f"at once {number}", {}, {})
    together = threading.Barrier(len(trackers))

    def log_all(tracker: MlflowTracker) -> None:
        for number in range(12):
            together.wait(60)
            tracker.log_clip(a_clip(f"clip {number}"))

    with ThreadPoolExecutor(len(trackers)) as pool:
        list(pool.map(log_all, trackers))
    inputs = [client(tracker).get_run(tracker.run_id).inputs.dataset_inputs for tracker in trackers]
    assert [len(entries) for entries in inputs] == [12] * 4
    assert len({entry.dataset.digest for entries in inputs for entry in entries}) == 12


def test_files_and_images_arrive_and_images_once_per_step(tracker: MlflowTracker, tmp_path: Path) -> None:
    (tmp_path / "sample.mp4").write_bytes(b"mp4")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "page.html").write_text("<p>")
    Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)).save(tmp_path / "sheet.png")
    tracker.start_run("files", {DIGEST_TAG: "files"}, {})
    tracker.log_artifact(tmp_path / "sample.mp4", "samples")
    tracker.log_artifact(tmp_path / "sample.mp4", NASTY)
    tracker.log_artifact(tmp_path / "report", "report")
    for step in (0, 1, 0):
        tracker.log_image(tmp_path / "sheet.png", "sheets/prompt: 1", step)
    mlflow = client(tracker)
    assert [entry.path for entry in mlflow.list_artifacts(tracker.run_id, "samples")] == ["samples/sample.mp4"]
    assert [entry.path for entry in mlflow.list_artifacts(tracker.run_id, "report")] == ["report/page.html"]
    images = [Path(entry.path).name for entry in mlflow.list_artifacts(tracker.run_id, "images")]
    assert sorted(name.partition("+timestamp")[0] for name in images if name.endswith(".png")) == [
        "sheets~prompt-1+step+0",
        "sheets~prompt-1+step+1",
    ]
    root = Path(mlflow.get_run(tracker.run_id).info.artifact_uri.removeprefix("file://").replace("%20", " "))
    assert {path.name for path in root.iterdir()} == {"samples", "report", "images", "Fuchs"}


def test_concept_comes_back_byte_for_byte_scored_versioned_and_once(
    place: Path, tracker: MlflowTracker, tmp_path: Path
) -> None:
    import mlflow

    folder = tmp_path / "concept"
    (folder / "deep").mkdir(parents=True)
    (folder / "lora.safetensors").write_bytes(os.urandom(100_000))
    (folder / "deep" / "concept.json").write_text('{"name": "fox"}')
    tracker.start_run("concept", {DIGEST_TAG: "concept"}, {})
    identity = tracker.log_concept(folder, "Füchs/../ 'x'", "set", {}, register=False)
    uri = tracker.log_concept(folder / "deep", "fox", "", {"clip": 0.3}, register=True, follows=identity)
    assert tracker.log_concept(folder / "deep", "fox", "", {"clip": 0.3}, register=True, follows=identity) == uri
    api = client(tracker)
    model = api.get_logged_model(uri.removeprefix("models:/"))
    assert model.status.value == "READY"
    assert model.source_run_id == tracker.run_id
    assert model.tags["mannerism.follows"] == identity
    assert [(metric.key, metric.value) for metric in model.metrics] == [("clip", 0.3)]
    assert api.get_logged_model(identity.removeprefix("models:/")).name == "Füchs x -set"
    version = api.get_model_version_by_alias("fox", "candidate")
    assert (int(version.version), version.source) == (1, uri)
    assert json.loads(api.get_logged_model(model.model_id).tags["mlflow.modelVersions"]) == [
        {"name": "fox", "version": 1}
    ]
    assert len(api.search_model_versions("name = 'fox'")) == 1
    assert len(api.get_run(tracker.run_id).outputs.model_outputs) == 2

    for address, original in ((identity, folder), ("models:/fox@candidate", folder / "deep")):
        fetched = Path(mlflow.artifacts.download_artifacts(address))
        for path in original.rglob("*.*"):
            assert (fetched / path.relative_to(original)).read_bytes() == path.read_bytes()

    (folder / "deep" / "concept.json").write_text('{"name": "red fox"}')
    changed = tracker.log_concept(folder / "deep", "fox", "", {}, register=True, follows=identity)
    assert changed != uri
    assert int(api.get_model_version_by_alias("fox", "candidate").version) == 2
    tracker.end()


def test_model_left_half_written_by_a_kill_is_replaced(tracker: MlflowTracker, tmp_path: Path) -> None:
    from pipeline_lib.tracking.concept_models import _content

    (tmp_path / "lora.safetensors").write_bytes(b"lora")
    tracker.start_run("half", {DIGEST_TAG: "half"}, {})
    api = client(tracker)
    tags = {"mannerism.content": _content(tmp_path)}
    half = api.create_logged_model(
        tracker._connection.experiment_id, name="half", source_run_id=tracker.run_id, tags=tags
    )
    uri = tracker.log_concept(tmp_path, "half", "", {}, register=False)
    assert not uri.endswith(half.model_id)
    found = api.search_logged_models([tracker._connection.experiment_id], f"source_run_id = '{tracker.run_id}'")
    assert [f"models:/{model.model_id}" for model in found] == [uri]


def test_names_from_users_do_no_harm(tracker: MlflowTracker) -> None:
    tracker.start_run(NASTY, {DIGEST_TAG: "nasty", NASTY: NASTY}, {NASTY: NASTY})
    tracker.log_metrics([(NASTY, 1.0, 0)])
    stage = tracker.child(NASTY)
    stage.end()
    tracker.end()
    run = client(tracker).get_run(tracker.run_id)
    assert run.info.run_name.isprintable()
    assert list(run.data.metrics) == ["Fuchs"]
    with pytest.raises(ValueError, match="cannot be searched"):
        tracker.find_run("' OR 1=1")


def test_machine_load_is_noted_on_wish(place: Path) -> None:
    tracker = new_tracker(place, system_metrics_seconds=0.1)
    tracker.start_run("load", {DIGEST_TAG: "load"}, {})
    time.sleep(0.6)
    tracker.end()
    assert any(name.startswith("system/cpu") for name in client(tracker).get_run(tracker.run_id).data.metrics)


@pytest.mark.parametrize("uri", ["sqlite:///relative.db", "file:///tmp/mlruns", "mlruns", "databricks", ""])
def test_other_uris_are_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tracking uri"):
        MlflowTracker(uri, "concepts", tmp_path)


def test_looking_at_the_seam_does_not_import_mlflow() -> None:
    program = (
        "import sys, pipeline_lib.tracking, pipeline_lib.tracking.mlflow_tracker; assert 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_null_tracker_takes_everything(tmp_path: Path) -> None:
    tracker: Tracker = NullTracker()
    assert tracker.start_run("x", {}, {}) == tracker.run_id == tracker.url == tracker.find_run("d") == ""
    tracker.child("train").log_metrics([("loss", 1.0, 0)])
    tracker.log_artifact(tmp_path)
    tracker.log_image(tmp_path, "x", 0)
    assert tracker.log_concept(tmp_path, "x", "", {}, register=True) == ""
    tracker.end()
