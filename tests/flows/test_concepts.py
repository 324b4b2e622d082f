"""Which concepts a batch is made of; no server, no model."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.concepts import chosen_concepts, concepts_in
from pipeline_lib.errors import ConfigError, InputError
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.concepts import find_concept
from pipeline_lib.steps.state import StateFolder
from tests.flows.conftest import command

TEMPLATE = RunConfig.model_validate({"method": {"name": "lora"}, "seed": 3})


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A clip, a folder with words of its own, one with wrong words, and what is no concept."""
    for name in ("grey_wolf.mp4", ".hidden.mp4", "notes.txt", "picture.png"):
        (tmp_path / name).touch()
    for name in ("owl", "bear", ".git"):
        (tmp_path / name).mkdir()
    (tmp_path / "owl" / "concept.yaml").write_text("name: snowy\nsubject: snowy owl\nseed: 7\n")
    (tmp_path / "bear" / "concept.yaml").write_text("subjct: bear\n")
    return tmp_path


def test_a_folder_holds_clips_and_folders(zoo: Path) -> None:
    assert [path.name for path in concepts_in(zoo)] == ["bear", "grey_wolf.mp4", "owl"]
    assert concepts_in(zoo / "owl") == [zoo / "owl"], "a folder that says what it is, is one"


def test_each_has_the_templates_method_and_its_own_words(zoo: Path) -> None:
    bear, wolf, owl = chosen_concepts(concepts_in(zoo), TEMPLATE)
    assert bear.config is None
    assert "subjct" in bear.problem
    assert wolf.config is not None
    assert owl.config is not None
    assert (wolf.config.concept.subject, wolf.config.seed, wolf.name) == ("grey wolf", 3, "grey-wolf")
    assert (owl.config.concept.subject, owl.config.seed, owl.name) == ("snowy owl", 7, "snowy")
    assert {wolf.config.method.name, owl.config.method.name} == {"lora"}
    assert owl.config.concept.inputs == (str(zoo / "owl"),)


def test_one_path_is_one_concept(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(zoo)
    (only,) = chosen_concepts([Path("owl"), zoo / "owl", Path("owl")], TEMPLATE)
    assert only.config is not None
    assert only.config.concept.inputs == (str(zoo / "owl"),), "runs may be made from anywhere"


def test_what_is_no_folder_of_concepts_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no concepts"):
        concepts_in(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        concepts_in(tmp_path / "nothing")
    config = RunConfig.model_validate({"concept": {"inputs": ["a.mp4"]}})
    with pytest.raises(ConfigError, match=r"concept\.inputs"):
        chosen_concepts([], config)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{empty}"], "holds no concepts"),
        (["{empty}", "--set", "sed=1"], "sed"),
        (["{empty}", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["{empty}", "--at-once", "0"], "at-once"),
        ([], "Missing argument"),
    ],
)
def test_what_no_batch_can_use_is_told_before_anything_starts(tmp_path: Path, arguments: list[str], said: str) -> None:
    filled = [text.format(empty=tmp_path) for text in arguments]
    code, _, errors = command(["batch", *filled])
    assert code == 2
    assert said in errors
    assert errors.count("\n") == 1


def test_an_empty_form_names_no_concept(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no concept is named"):
        find_concept(" ", StateFolder(tmp_path))
