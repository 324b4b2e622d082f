"""Registered concepts and their champion, in a real MLflow on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from filelock import FileLock, Timeout

from pipeline_lib.errors import ArtifactError, InputError, PipelineError
from pipeline_lib.records import ArtifactRef, Comparison, Decision
from pipeline_lib.steps.gate import DECISION_TAG, REASON_TAG, decision_tags, evidence, evidence_of, same_clips, told
from pipeline_lib.steps.step import StepResult
from pipeline_lib.storage import ArtifactStore
from pipeline_lib.tracking import DIGEST_TAG, ended
from pipeline_lib.tracking.concept_registry import CHAMPION, ConceptRegistry, ConceptVersion
from pipeline_lib.tracking.connection import database_lock
from pipeline_lib.tracking.mlflow_tracker import MlflowTracker

Register = Callable[[str, str], ConceptVersion]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


def uri_of(place: Path) -> str:
    return f"sqlite:///{place}/mlflow.db"


@pytest.fixture(scope="module")
def registry(place: Path) -> ConceptRegistry:
    return ConceptRegistry(uri_of(place), "concepts", place / "artifacts")


@pytest.fixture
def register(place: Path, registry: ConceptRegistry, tmp_path: Path) -> Register:
    """Makes a run and registers its concept, as the end of a run does."""

    def make(name: str, content: str) -> ConceptVersion:
        folder = tmp_path / f"{name}-{content}"
        folder.mkdir()
        (folder / "concept.json").write_text(f'{{"name": "{content}"}}')
        tracker = MlflowTracker(uri_of(place), "concepts", place / "artifacts")
        tracker.start_run(name, {DIGEST_TAG: f"{name}-{content}"}, {})
        model = tracker.log_concept(folder, name, "concept", {"dino_i": 0.5}, register=True)
        tracker.end()
        return registry.version_of(name, model)

    return make


def test_the_alias_moves_from_version_to_version_and_only_from_the_one_that_was_looked_at(
    registry: ConceptRegistry, register: Register, place: Path
) -> None:
    first, second = register("wolf", "a"), register("wolf", "b")
    assert registry.champion("wolf") is None
    with pytest.raises(InputError, match=r"wolf has no champion yet.*versions 1, 2.*e\.g\. wolf@2"):
        registry.find("wolf")
    assert registry.crown(first, instead_of=0)
    assert not registry.crown(second, instead_of=0), "it was compared with nothing, and there is a champion now"
    assert registry.crown(second, instead_of=1)
    champion = registry.find("wolf")
    assert (champion.number, champion.aliases) == (2, ("candidate", CHAMPION))
    assert champion.scores == {"dino_i": 0.5}
    by_mlflow = mlflow.MlflowClient(uri_of(place)).get_model_version_by_alias("wolf", CHAMPION)
    assert by_mlflow.source == champion.source
    assert str(registry.find("wolf@1")) == "wolf@1"
    assert registry.find("wolf@candidate").number == 2


def test_what_is_not_there_is_told_with_what_is(registry: ConceptRegistry, register: Register, place: Path) -> None:
    register("bear", "a")
    mlflow.MlflowClient(uri_of(place)).create_registered_model("somebody else's")
    with pytest.raises(InputError, match=r"there is no concept 'badger'.*bear") as error:
        registry.find("badger")
    assert "somebody" not in str(error.value)
    with pytest.raises(InputError, match=r"bear has no version '7'.*one of 1"):
        registry.find("bear@7")
    with pytest.raises(InputError, match="there is no concept '@'"):
        registry.find("@")


def test_versions_of_others_and_deleted_ones_are_left_out(
    registry: ConceptRegistry, register: Register, place: Path
) -> None:
    client = mlflow.MlflowClient(uri_of(place))
    first, second = register("hare", "a"), register("hare", "b")
    client.create_model_version("hare", "s3://somewhere/else")
    client.delete_logged_model(first.source.removeprefix("models:/"))
    assert [version.number for version in registry.versions("hare")] == [second.number]


def test_what_cannot_be_asked_is_not_taken_for_absent(tmp_path: Path) -> None:
    registry = ConceptRegistry(uri_of(tmp_path), "concepts", tmp_path / "artifacts")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("ALTER TABLE registered_models RENAME TO gone")
    for ask in (registry.concepts, lambda: registry.find("wolf")):
        with pytest.raises(PipelineError, match="cannot be asked"):
            ask()


def test_those_who_share_a_state_folder_take_turns_at_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANNERISM_STATE", str(tmp_path))
    with database_lock("http://127.0.0.1:5000"), database_lock("http://127.0.0.1:5001"):
        locks = list(tmp_path.rglob("*.lock"))
        assert len(locks) == 2
        for lock in locks:
            with pytest.raises(Timeout):
                FileLock(lock).acquire(timeout=0)


def test_a_run_that_breaks_is_not_left_open(place: Path) -> None:
    tracker = MlflowTracker(uri_of(place), "concepts", place / "artifacts")
    with pytest.raises(ValueError, match="of the block"), ended(tracker):
        tracker.start_run("torn", {}, {})
        raise ValueError("of the block")
    assert mlflow.MlflowClient(uri_of(place)).get_run(tracker.run_id).info.status == "FAILED"


def test_an_empty_registry_says_what_fills_it(tmp_path: Path) -> None:
    empty = ConceptRegistry(uri_of(tmp_path), "concepts", tmp_path / "artifacts")
    assert empty.concepts() == []
    with pytest.raises(InputError, match="a run registers its own"):
        empty.find("wolf")


def test_files_are_fetched_once(registry: ConceptRegistry, register: Register, tmp_path: Path) -> None:
    version = register("otter", "a")
    folder = registry.fetch(version, tmp_path / "fetched" / "otter")
    assert (folder / "concept.json").read_text() == '{"name": "a"}'
    (folder / "mine.txt").touch()
    assert (registry.fetch(version, folder) / "mine.txt").exists()


def test_a_decision_and_what_it_rests_on_stay_with_the_version(
    registry: ConceptRegistry, register: Register, tmp_path: Path
) -> None:
    store = ArtifactStore(tmp_path / "store")
    key = store.key("samples", [], {}, 1, {})

    def write(folder: Path) -> None:
        (folder / "x").write_text("x")

    made = store.build("samples", key, write)
    steps = {"generate-personalised": StepResult(step="generate-personalised", ref=made.ref, found=False)}
    gone = ArtifactRef(kind="scores", key="0" * 64, digest="0" * 64)
    steps["evaluate"] = StepResult(step="evaluate", ref=gone, found=False)
    version = register("lynx", "a")
    registry.note(version, evidence(steps, "lynx-12345678"))
    compared = Comparison(
        metric="dino_i", challenger=0.6, other=0.5, difference=0.1, low=0.05, high=0.2, verdict="better"
    )
    decision = Decision(passed=True, against="champion", reason="is better", comparisons=(compared,))
    registry.note(version, decision_tags(decision, version))
    (kept,) = registry.versions("lynx")
    assert kept.tags["mannerism.run"] == "lynx-12345678"
    assert evidence_of(kept, "generate-personalised", store).ref == made.ref
    with pytest.raises(ArtifactError, match="missing"):
        evidence_of(kept, "evaluate", store)
    with pytest.raises(ArtifactError, match="does not say what its prepare made"):
        evidence_of(kept, "prepare", store)
    with pytest.raises(ArtifactError, match="does not say what its prepare made"):
        same_clips(kept, steps["evaluate"])
    registry.note(version, evidence({"prepare": StepResult(step="prepare", ref=made.ref, found=False)}, "lynx-1"))
    (kept,) = registry.versions("lynx")
    assert same_clips(kept, steps["generate-personalised"])
    assert not same_clips(kept, steps["evaluate"])
    assert Decision.model_validate_json(kept.tags[DECISION_TAG]) == decision
    assert kept.tags[REASON_TAG] in told(kept, decision, None)
