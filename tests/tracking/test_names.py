"""Whatever people call their files, the names that reach MLflow are harmless."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.tracking import names


@given(st.text())
def test_names_are_always_usable(text: str) -> None:
    key = names.key(text)
    assert re.fullmatch(r"[A-Za-z0-9_\-. /]{1,250}", key)
    assert all(part.strip(" .") == part and part for part in key.split("/"))
    assert names.key(key) == key
    run = names.run_name(text)
    assert run.isprintable()
    assert 1 <= len(run) <= 100
    model = names.model_name(text)
    assert 1 <= len(model) <= 100
    assert not set(model) & set("/:.%\"'`\\\n")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("train: set", "train-set"),
        ("clip/text-image", "clip/text-image"),
        ("../../etc/passwd", "etc/passwd"),
        ("größe", "gro-e-d353a2"),
        ("Füchsin", "Fuchsin"),
        ("..", "unnamed"),
    ],
)
def test_keys_stay_readable(text: str, key: str) -> None:
    assert names.key(text) == key


def test_texts_in_other_scripts_stay_apart() -> None:
    assert len({names.key(text) for text in ("狗", "猫", "a 狗", "a 猫", "собака")}) == 5


def test_params_are_flattened() -> None:
    assert names.flat_params({"a": {"b": 1, "c": []}, "d": [{"e": None}, 2], "f": (1, 2)}) == {
        "a.b": "1",
        "a.c": "[]",
        "d.0.e": "None",
        "d.1": "2",
        "f": "(1, 2)",
    }
