"""Methods against the very clip that was asked for: in pairs, kinds of edits apart, nothing where it is not known."""

from __future__ import annotations

import pytest

from pipeline_lib.metrics import ScoredSample
from pipeline_lib.metrics.catalog import Measurement, Trace, to_score
from pipeline_lib.metrics.comparison import EDITS, compared

CONCEPTS = [f"gizmo {number}" for number in range(6)]


def sample(
    row: str, concept: str, prompt: str = "a", kind: str = "local", seed: int = 0, **values: float
) -> ScoredSample:
    scores = tuple(to_score(name, Measurement(value), Trace()) for name, value in values.items())
    return ScoredSample(row=row, prompt=prompt, kind=kind, seed=seed, scores=scores, concept=concept)


def test_each_row_is_held_against_the_clip_that_was_asked_for_prompt_by_prompt() -> None:
    samples = [
        *(sample("x", c, "a", seed=seed, mse_edit=0.02 * seed) for c in CONCEPTS for seed in (0, 1, 2)),
        *(sample("x", c, "b", mse_edit=0.5, identity_accuracy=0.5) for c in CONCEPTS),
        *(sample("x", c, "not known", mse_edit=0.9, clip_i=0.9) for c in CONCEPTS),
        *(sample("ceiling", c, "a", mse_edit=0.05) for c in CONCEPTS),
        *(sample("ceiling", c, "b", mse_edit=0.4, identity_accuracy=0.9) for c in CONCEPTS),
        *(sample("ceiling", c, "window", "reconstruction", clip_i=0.97, mse=0.01) for c in CONCEPTS),
    ]
    whole = compared(samples, ["x"]).asked_for
    assert list(whole) == [EDITS], "one kind alone"
    found = whole[EDITS]
    assert list(found) == ["x"], "the base has none of these"
    assert list(found["x"]) == ["mse_edit"], "neither the truth, whose ceiling is its end, nor what shows the reference"
    cell = found["x"]["mse_edit"]
    assert cell.mean == pytest.approx(((0.02 - 0.05) + (0.5 - 0.4)) / 2)
    assert (cell.num_concepts, cell.num_values) == (6, 12)
    alone = [s for s in samples if s.row != "ceiling" or s.kind == "reconstruction"]
    assert compared(alone, ["x"]).asked_for == {}
    around = [s.model_copy(update={"kind": "global"}) if s.prompt == "b" else s for s in samples]
    shunned = [s.model_copy(update={"negative": "sand"}) if s.row == "x" else s for s in around]
    apart = compared(shunned, ["x"]).asked_for
    assert list(apart) == ["local", "global"]
    errors = [apart[kind]["x"]["mse_edit"].mean for kind in apart]
    assert errors == pytest.approx([0.02 - 0.05, 0.5 - 0.4]), "which cancel out together"
