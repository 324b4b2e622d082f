"""`generate`, `export` and `concepts` on registered concepts, in a real MLflow; one video from the champion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline_lib.records import Decision
from pipeline_lib.steps.concepts import registry_of
from pipeline_lib.steps.gate import decision_tags
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.tracking import DIGEST_TAG
from pipeline_lib.tracking.concept_registry import ConceptRegistry
from pipeline_lib.tracking.mlflow_tracker import MlflowTracker
from tests.cli.test_bad_input import command, state
from tests.cli.test_concept_commands import concept

__all__ = ["concept", "state"]


@pytest.fixture
def registry(state: Path, concept: Path, monkeypatch: pytest.MonkeyPatch) -> ConceptRegistry:
    """Version 1 and 2 of `rex`, the second with other words; neither is the champion yet."""
    folder = StateFolder.open()
    for number in (1, 2):
        if number == 2:
            record = json.loads((concept / "concept.json").read_text())
            (concept / "concept.json").write_text(json.dumps({**record, "seed": 7}))
        tracker = MlflowTracker(folder.mlflow_uri, "mannerism", folder.mlflow_artifacts)
        tracker.start_run("rex", {DIGEST_TAG: f"rex-{number}"}, {})
        tracker.log_concept(concept, "rex", "concept", {"dino_i": 0.4 + number / 10}, register=True)
        tracker.end()
    monkeypatch.chdir(state)  # away from the folder `rex`, which would be meant
    found = registry_of(folder)
    assert found is not None
    return found


def test_a_concept_is_generated_from_by_its_name(registry: ConceptRegistry, state: Path, tmp_path: Path) -> None:
    for asked, said in (("rex", "rex has no champion yet"), ("rex@9", "rex has no version '9'"), ("wolf", "rex")):
        ended = command("generate", asked, "a {subject} in snow")
        assert ended.code == 2, ended.errors
        assert said in ended.errors
        assert ended.errors.count("\n") == 1
    registry.crown(registry.find("rex@1"), instead_of=0)
    refused = Decision(passed=False, against="champion", reason="is worse in DINO-I")
    registry.note(registry.find("rex@2"), decision_tags(refused, registry.champion("rex")))

    (listed,) = json.loads(command("concepts", "--json").output)["concepts"]
    assert (listed["concept"], listed["champion"], listed["versions"]) == ("rex", 1, 2)
    assert listed["scores"] == {"dino_i": 0.5}
    table = command("concepts").output
    assert "dino_i 0.500" in table
    assert "rex@2 is worse in DINO-I" in table

    out = tmp_path / "videos"
    ended = command("generate", "rex", "a {subject} in snow", "--frames", "5", "--out", str(out), "--json")
    assert ended.code == 0, ended.errors
    told = json.loads(ended.output)
    assert (told["concept"], told["found"]) == ("rex@1", False)
    assert [Path(file) for file in told["files"]] == [out / "rex-0-0.mp4"]
    assert (out / "rex-0-0.mp4").stat().st_size > 0
    for asked, seed in (("rex", 0), ("rex@2", 7), ("rex@candidate", 7)):
        target = tmp_path / f"{asked}-concept"
        assert command("export", asked, "--format", "concept", "--out", str(target)).code == 0
        assert json.loads((target / "concept.json").read_text())["seed"] == seed, "the version's own files"


def test_nothing_is_registered_yet(state: Path) -> None:
    assert "no concepts yet" in command("concepts").output
    ended = command("generate", "wolf@2", "a {subject}")
    assert ended.code == 2
    assert "none is registered yet" in ended.errors
    assert not state.exists()
