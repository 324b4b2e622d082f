"""Blind pairs: the count of what people said, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline_lib.compare.blind import Asked, BlindKey, tally, write_blind
from pipeline_lib.errors import InputError
from pipeline_lib.steps.state import StateFolder


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Path]:
    def asked(left: str, right: str) -> Asked:
        return Asked(concept="bim", prompt="a bim", seed=0, left=left, right=right)

    pairs = {"one": asked("ours", "lora"), "two": asked("lora", "ours"), "three": asked("ours", "lora")}
    path = tmp_path / "key.json"
    path.write_text(BlindKey(comparison="compare-1", pairs=pairs).model_dump_json())
    return {"compare-1": path}


def saved(path: Path, **answers: dict[str, str]) -> Path:
    path.write_text(json.dumps({"comparison": "compare-1", "answers": answers}))
    return path


def test_sides_are_turned_back_into_methods_and_people_are_added_up(tmp_path: Path, keys: dict[str, Path]) -> None:
    first = saved(tmp_path / "a.json", one={"identity": "left", "overall": "right"}, two={"identity": "right"})
    second = saved(tmp_path / "b.json", one={"identity": "right"}, three={"identity": "even"})
    found = {one.question: one for one in tally([first, second], keys)}
    identity = found["identity"]
    assert (identity.row, identity.against) == ("lora", "ours")
    assert (identity.won, identity.even, identity.lost) == (1, 1, 2)
    assert identity.share is not None
    assert (identity.share.mean, identity.share.low) == (pytest.approx(1 / 3), None), "one concept has no interval"
    assert (found["overall"].won, found["overall"].lost) == (1, 0)
    assert list(found) == ["identity", "overall"], "in the order of the questions"


def test_nobody_who_saw_a_difference_is_no_share(tmp_path: Path, keys: dict[str, Path]) -> None:
    (only,) = tally([saved(tmp_path / "a.json", one={"motion": "even"})], keys)
    assert (only.share, only.even) == (None, 1)


def test_a_concept_counts_once_however_many_people_were_asked_about_it(tmp_path: Path) -> None:
    pairs = {f"c{number}": Asked(concept=f"c{number}", prompt="a", seed=0, left="x", right="y") for number in range(6)}
    pairs["more"] = Asked(concept="c0", prompt="b", seed=0, left="x", right="y")
    path = tmp_path / "key.json"
    path.write_text(BlindKey(comparison="compare-1", pairs=pairs).model_dump_json())
    said = {name: {"overall": "left" if name in ("c0", "more", "c1") else "right"} for name in pairs}
    files = [saved(tmp_path / f"{person}.json", **said) for person in "ab"]
    (only,) = tally(files, {"compare-1": path})
    assert (only.won, only.lost) == (6, 8)
    share = only.share
    assert share is not None
    assert (share.mean, share.num_concepts, share.num_values) == (pytest.approx(2 / 6), 6, 14)
    low, high = share.surely_within or (0.0, 0.0)
    assert low < 2 / 6 < high


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no json", "holds no answers"),
        ("[]", "holds no answers"),
        ('{"comparison": "compare-1"}', "holds no answers"),
        ('{"comparison": "compare-2", "answers": {}}', "not here"),
        ('{"comparison": "compare-1", "answers": {"four": {"identity": "left"}}}', "not asked"),
        ('{"comparison": "compare-1", "answers": {"one": {"beauty": "left"}}}', "cannot be"),
        ('{"comparison": "compare-1", "answers": {"one": {"identity": "top"}}}', "cannot be"),
        ('{"comparison": "compare-1", "answers": {"one": "left"}}', "not asked"),
    ],
)
def test_what_is_no_answer_is_told_with_its_file(
    tmp_path: Path, keys: dict[str, Path], content: str, said: str
) -> None:
    path = tmp_path / "answers.json"
    path.write_text(content)
    with pytest.raises(InputError, match=said) as caught:
        tally([path], keys)
    assert "answers.json" in str(caught.value)


def test_without_pairs_there_is_no_page_and_what_was_saved_still_counts(tmp_path: Path, keys: dict[str, Path]) -> None:
    page = tmp_path / "blind.html"
    page.write_text("pairs of a former start")
    assert write_blind(StateFolder.open(tmp_path / "state"), [], page, keys["compare-1"], "compare-1") == 0
    assert not page.exists()
    assert tally([saved(tmp_path / "a.json", one={"overall": "left"})], keys)[0].lost == 1
