"""Slices of a comparison: by pace, and by one and two subjects where there are both."""

from __future__ import annotations

import pytest

from pipeline_lib.compare.slices import ONE, TWO, outside, slices
from pipeline_lib.metrics import ScoredSample
from pipeline_lib.metrics.catalog import Measurement, Trace, to_score
from pipeline_lib.metrics.comparison import ComparedScores, compared
from pipeline_lib.report.compare_tables import slice_matrices

VALUES = {"tocket": 0.8, "wulp": 0.6, "yemmo": 0.7, "tocket-and-wulp": 0.2, "pindle-and-grusk": 0.4}
KINDS = {"tocket": "fast", "wulp": "slow", "yemmo": "fast", "tocket-and-wulp": "pair", "pindle-and-grusk": "pair"}


def sliced(kinds: dict[str, str]) -> ComparedScores:
    samples = [
        ScoredSample(
            row="x", prompt="a", kind=kind, seed=0, concept=name,
            scores=(to_score("identity_accuracy", Measurement(VALUES[name] if kind == "local" else 0.0), Trace()),),
        )
        for name in kinds
        for kind in ("local", "reconstruction")
    ]  # fmt: skip
    alike = slices(kinds)
    return compared(samples, ["x"], (), alike, outside(alike))


def test_pairs_stand_beside_the_paces_and_all_who_are_alone_together() -> None:
    scores = sliced(KINDS)
    assert scores.slice_sizes == {"slow": 1, "fast": 2, ONE: 3, TWO: 2}
    means = {kind: cells["x"]["identity_accuracy"].mean for kind, cells in scores.slices.items()}
    assert means == pytest.approx({"slow": 0.6, "fast": 0.75, ONE: 0.7, TWO: 0.3}), "edit prompts alone"
    assert list(means) == ["slow", "fast", ONE, TWO]
    assert scores.tables["edits"]["x"]["identity_accuracy"].num_concepts == 3, "a gizmo counts once"
    shown = [(table.title, table.told) for table in slice_matrices(scores, ["x"])]
    assert shown[2:] == [("One subject", "3 concepts"), ("Two subjects", "2 concepts")]


@pytest.mark.parametrize("kept", ["pair", "fast"])
def test_where_all_are_of_one_number_there_is_no_slice_by_it(kept: str) -> None:
    scores = sliced({name: kind for name, kind in KINDS.items() if kind == kept})
    assert set(scores.slices) == ({"fast"} if kept == "fast" else set())


def test_of_whom_nothing_is_known_stands_in_no_slice() -> None:
    assert sliced({"tocket": "", "tocket-and-wulp": "pair"}).slices == {}
