"""A concept's name, which may be a stranger's, becomes part of paths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.models.concept import read_concept
from pipeline_lib.records import Caption, ConceptRecord

FACTS = {
    "method": "lora",
    "base": "pocket",
    "base_digest": "0" * 64,
    "family": "wan",
    "trigger": "dog",
    "class_noun": "dog",
    "captions": (Caption(class_noun="dog"),),
    "stages": (),
    "rank": 3,
    "seed": 0,
    "data_digest": "1" * 64,
}


@pytest.mark.parametrize("name", ["rex", "my dog 1.5", "grey-wolf_2", "Bär", "9"])
def test_names_of_people_stay(name: str) -> None:
    assert ConceptRecord.model_validate({**FACTS, "name": name}).name == name


@pytest.mark.parametrize(
    "name", ["", ".", "../../out", "/tmp/out", "a/b", "a\\b", "-rf", ".hidden", "a\nb", "a\0b", "x" * 101]
)
def test_a_path_is_no_name(name: str, tmp_path: Path) -> None:
    record = ConceptRecord.model_validate({**FACTS, "name": "rex"})
    content = {**record.model_dump(mode="json"), "name": name}
    (tmp_path / "concept.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="a concept's name is"):
        read_concept(tmp_path)
