"""Methods side by side, on scores whose answers are known: means, orderings, wins, rank correlation, Pareto front."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from scipy import stats

from pipeline_lib.errors import InputError
from pipeline_lib.metrics import ScoredSample
from pipeline_lib.metrics.agreement import agreements, spearman
from pipeline_lib.metrics.catalog import Measurement, Trace, to_score
from pipeline_lib.metrics.comparison import EDITS, RECONSTRUCTION, compared
from pipeline_lib.metrics.orderings import Ordering, findings
from pipeline_lib.metrics.over_concepts import concept_means, mean_over_concepts
from pipeline_lib.metrics.pareto import pareto_front
from pipeline_lib.metrics.wins import pairwise_wins

CONCEPTS = [f"gizmo {number}" for number in range(6)]


def sample(
    row: str, concept: str, prompt: str = "a", kind: str = "local", seed: int = 0, **values: float
) -> ScoredSample:
    scores = tuple(to_score(name, Measurement(value), Trace(), high=100) for name, value in values.items())
    return ScoredSample(row=row, prompt=prompt, kind=kind, seed=seed, scores=scores, concept=concept)


def table(rows: Mapping[str, float], metric: str = "identity_accuracy", count: int = 6) -> Iterator[ScoredSample]:
    """Each row's value, a little higher from concept to concept, on two prompts."""
    for row, value in rows.items():
        for number, concept in enumerate(CONCEPTS[:count]):
            for prompt in ("a", "b"):
                yield sample(row, concept, prompt, **{metric: value + 0.01 * number})


def ordering(relation: str, row: str = "x", against: tuple[str, ...] = ("y",)) -> Ordering:
    return Ordering(
        name="o", statement="s", source="t", row=row, relation=relation, against=against, metrics=("identity_accuracy",)
    )


def test_the_interval_is_over_concepts_or_there_is_none() -> None:
    many = {("one", f"prompt {number}", 0): 0.1 * number for number in range(8)}
    alone = mean_over_concepts(many)
    assert alone is not None
    assert (alone.mean, alone.low, alone.num_concepts, alone.num_values) == (pytest.approx(0.35), None, 1, 8)
    spread = mean_over_concepts({(name, "a", 0): 0.1 * number for number, name in enumerate(CONCEPTS)})
    assert spread is not None
    assert spread.low is not None
    assert 0 < spread.low < 0.25 < spread.high < 0.5
    assert mean_over_concepts({}) is None


def test_of_how_many_concepts_the_mean_is_above_zero_is_counted_and_rounding_counts_for_nothing() -> None:
    values = {("one", "a", 0): 1.0, ("one", "b", 0): -0.5, ("two", "a", 0): -1.0, ("three", "a", 0): 1e-12}
    found = mean_over_concepts(values)
    assert found is not None
    assert (found.num_above, found.num_concepts) == (1, 3)


def test_each_concept_counts_once_however_many_prompts_it_has() -> None:
    values = {("many", f"prompt {number}", 0): 1.0 for number in range(50)} | {(n, "a", 0): 0.0 for n in CONCEPTS[:5]}
    found = mean_over_concepts(values)
    assert found is not None
    assert (found.mean, found.num_concepts, found.num_values) == (pytest.approx(1 / 6), 6, 55)
    expected = stats.t.interval(0.95, 5, 1 / 6, stats.sem([1.0, 0, 0, 0, 0, 0]))
    assert (found.student_low, found.student_high) == pytest.approx(expected)
    assert found.low == 0
    assert found.high is not None
    assert found.high < 0.6


def test_who_is_outside_counts_in_slices_alone() -> None:
    samples = list(table({"x": 0.5, "y": 0.3}))
    slices = {"one": CONCEPTS[:5], "two": CONCEPTS[5:]}
    found = compared(samples, ["x", "y"], [ordering("above")], slices, outside=CONCEPTS[5:])
    assert found.slice_sizes == {"one": 5, "two": 1}
    assert found.slices["two"]["x"]["identity_accuracy"].mean == pytest.approx(0.55)
    assert found.tables[EDITS]["x"]["identity_accuracy"].num_concepts == 5
    assert found.findings[0].pairs[0].difference.num_concepts == 5
    assert found.differences[EDITS]["y"]["identity_accuracy"].num_concepts == 5


def test_rows_stand_in_the_order_asked_for_and_what_is_missing_is_left_out() -> None:
    cells = concept_means(list(table({"y": 0.2, "x": 0.5})), ["x", "nobody", "y"])
    assert list(cells) == ["x", "y"]
    assert cells["x"].keys() == {"identity_accuracy"}
    assert cells["x"]["identity_accuracy"].mean == pytest.approx(0.525)


@pytest.mark.parametrize(
    ("relation", "values", "verdict"),
    [
        ("above", {"x": 0.5, "y": 0.3}, "holds"),
        ("above", {"x": 0.3, "y": 0.5}, "does not hold"),
        ("below", {"x": 0.3, "y": 0.5}, "holds"),
        ("below", {"x": 0.5, "y": 0.3}, "does not hold"),
        ("equal", {"x": 0.5, "y": 0.51}, "holds"),
        ("equal", {"x": 0.5, "y": 0.7}, "does not hold"),
        ("above", {"x": 0.5, "y": 0.5}, "undecided"),
    ],
)
def test_an_ordering_holds_does_not_or_is_undecided(relation: str, values: dict[str, float], verdict: str) -> None:
    (found,) = findings(list(table(values)), [ordering(relation)])
    assert found.verdict == verdict
    assert found.pairs[0].difference.num_values == 12
    assert found.pairs[0].difference.mean == pytest.approx(values["x"] - values["y"])
    margin = 0.1 * (values["y"] + 0.025) if relation == "equal" else 0.0
    assert found.pairs[0].margin == pytest.approx(margin)


def test_noise_and_too_few_concepts_are_undecided() -> None:
    draws = np.random.default_rng(0).normal(0.5, 0.1, (2, 6))
    noisy = [sample(row, name, identity_accuracy=float(value)) for row, line in zip("xy", draws, strict=True)
             for name, value in zip(CONCEPTS, line, strict=True)]  # fmt: skip
    assert findings(noisy, [ordering("above")])[0].verdict == "undecided"
    assert findings(list(table({"x": 0.9, "y": 0.1}, count=4)), [ordering("above")])[0].verdict == "undecided"


@pytest.mark.parametrize("relation", ["above", "below"])
def test_what_cancels_out_but_for_rounding_decides_nothing(relation: str) -> None:
    """A third less, a third more, two thirds less, two more: none at all, but not in binary."""
    steps = (1 / 3, -2 / 3, 2 / 3, -1 / 3)
    assert sum(0.7 + step - 0.7 for step in steps) != 0.0
    samples = [
        sample(row, name, f"{number}", identity_accuracy=0.7 + (step if row == "x" else 0.0))
        for name in CONCEPTS
        for row in "xy"
        for number, step in enumerate(steps)
    ]
    (found,) = findings(samples, [ordering(relation)])
    assert found.pairs[0].difference.mean != 0.0
    assert found.verdict == "undecided"


def test_what_a_narrow_bootstrap_alone_would_say_is_undecided() -> None:
    gains = dict(zip(CONCEPTS, (0.30, 0.02, 0.02, 0.01, 0.01, 0.02), strict=True))
    samples = [sample(row, name, identity_accuracy=0.5 + (gain if row == "x" else 0.0))
               for name, gain in gains.items() for row in "xy"]  # fmt: skip
    (found,) = findings(samples, [ordering("above")])
    difference = found.pairs[0].difference
    assert difference.low is not None
    assert difference.student_low is not None
    assert difference.low > 0 > difference.student_low
    expected = stats.t.interval(0.95, 5, np.mean(list(gains.values())), stats.sem(list(gains.values())))
    assert (difference.student_low, difference.student_high) == pytest.approx(expected)
    assert found.verdict == "undecided"


def test_an_ordering_against_several_needs_all_of_them() -> None:
    samples = list(table({"x": 0.5, "y": 0.3, "z": 0.4}))
    assert findings(samples, [ordering("above", against=("y", "z"))])[0].verdict == "holds"
    assert findings(samples, [ordering("above", "z", ("y", "x"))])[0].verdict == "does not hold"
    partly = findings(samples, [ordering("above", against=("y", "absent"))])[0]
    assert (partly.verdict, len(partly.pairs)) == ("undecided", 1)
    assert findings(samples, [ordering("above", against=("absent",))]) == []


def test_only_equal_concept_prompt_and_seed_are_a_pair() -> None:
    samples = [*table({"x": 0.5, "y": 0.3}), sample("x", "gizmo 0", "only x", identity_accuracy=0.0),
               sample("y", "gizmo 0", "a", seed=1, identity_accuracy=1.0)]  # fmt: skip
    (found,) = findings(samples, [ordering("above")])
    assert found.pairs[0].difference.num_values == 12
    assert found.pairs[0].difference.mean == pytest.approx(0.2)


def test_wins_count_pairs_and_share_what_is_decided() -> None:
    samples = [
        sample("x", "g", "a", identity_accuracy=0.9, edit_accuracy=1.0),
        sample("y", "g", "a", identity_accuracy=0.5, edit_accuracy=1.0),
        sample("x", "g", "b", identity_accuracy=0.2, edit_accuracy=0.0),
        sample("y", "g", "b", identity_accuracy=0.5, edit_accuracy=1.0),
        sample("x", "g", "c", identity_accuracy=0.7, edit_accuracy=0.0),
        sample("y", "g", "c", identity_accuracy=0.5, edit_accuracy=1.0),
    ]
    wins = {one.question: one for one in pairwise_wins(samples, "x", ["y"])}
    assert (wins["identity"].won, wins["identity"].tied, wins["identity"].lost) == (2, 0, 1)
    assert (wins["prompt"].won, wins["prompt"].tied, wins["prompt"].lost) == (0, 1, 2)
    shares = {question: one.share.mean for question, one in wins.items() if one.share}
    assert shares == pytest.approx({"identity": 2 / 3, "prompt": 0.0, "overall": 1 / 3})
    assert (wins["overall"].won, wins["overall"].tied, wins["overall"].lost) == (1, 0, 2), (
        "the product of what was measured of both: who follows no prompt wins nothing"
    )
    assert wins["overall"].metrics == ("identity_accuracy", "edit_accuracy")
    assert "motion" not in wins


def test_where_all_is_even_nothing_is_shared() -> None:
    samples = [sample(row, "g", motion_fidelity=-0.2, edit_accuracy=0.4) for row in "xy"]
    wins = {one.question: one for one in pairwise_wins(samples, "x", ["y"])}
    assert {question: (one.tied, one.share) for question, one in wins.items()} == {
        "motion": (1, None), "prompt": (1, None), "overall": (1, None),
    }  # fmt: skip


def test_overall_has_the_same_metrics_in_every_pair() -> None:
    """By what is there alone, y would win the second pair, of which x's identity was never read."""
    samples = [
        sample("x", "g", "a", identity_accuracy=0.9, motion_fidelity=0.5, edit_accuracy=0.5),
        sample("y", "g", "a", identity_accuracy=0.5, motion_fidelity=0.5, edit_accuracy=0.5),
        sample("x", "still", "a", motion_fidelity=0.5, edit_accuracy=0.5),
        sample("y", "still", "a", identity_accuracy=0.9, motion_fidelity=0.5, edit_accuracy=0.7),
    ]
    wins = {one.question: one for one in pairwise_wins(samples, "x", ["y"])}
    assert (wins["overall"].won, wins["overall"].tied, wins["overall"].lost) == (1, 0, 0)
    assert wins["overall"].metrics == ("identity_accuracy", "motion_fidelity", "edit_accuracy")
    assert (wins["prompt"].tied, wins["prompt"].lost) == (1, 1), "each by itself has both pairs"
    apart = [
        sample("x", "g", "a", identity_accuracy=0.9), sample("y", "g", "a", identity_accuracy=0.5),
        sample("x", "g", "b", edit_accuracy=0.9), sample("y", "g", "b", edit_accuracy=0.5),
    ]  # fmt: skip
    assert [one.question for one in pairwise_wins(apart, "x", ["y"])] == ["identity", "prompt"], "no pair has both"


def test_spearman_is_scipys() -> None:
    draws = np.random.default_rng(3)
    for _ in range(20):
        first, second = draws.integers(0, 6, 12).tolist(), draws.normal(size=12).tolist()
        assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)
    assert spearman([1, 2, 3], [2, 30, 400]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 1, 1], [1, 2, 3]) is None
    assert spearman([1, 2], [1, 2]) is None


def test_agreement_that_rests_on_one_method_is_told() -> None:
    """w is far below the rest in both; among the rest the metric has the reverse order of the truth."""
    values = {"w": (0.0, 0.0), "x": (0.5, 0.9), "y": (0.6, 0.8), "z": (0.7, 0.7)}
    samples = [
        sample(row, name, subject_identity=seen, identity_accuracy=true)
        for name in CONCEPTS
        for row, (seen, true) in values.items()
    ]
    (found,) = agreements(samples, list(values))
    assert found.within_concepts is not None
    assert found.within_concepts.mean == pytest.approx(stats.spearmanr(*zip(*values.values(), strict=True)).statistic)
    assert (found.without_one, found.taken_out) == (pytest.approx(-1), "w")
    (three,) = agreements(samples, ["w", "x", "y"])
    assert (three.without_one, three.taken_out) == (None, ""), "two methods have no order to speak of"


def test_agreement_tells_ranks_within_concepts_from_ranks_over_all() -> None:
    """Concepts differ in level as the truth does, but within each the learned metric ranks methods upside down."""
    samples = []
    for number, concept in enumerate(CONCEPTS):
        for place, row in enumerate("xyz"):
            level = 0.1 * number
            up, down = level + 0.01 * place, level - 0.01 * place
            values = {"identity_accuracy": up, "dino_i": down, "motion_fidelity": up, "dynamic_degree_gap": 5 - up}
            samples.append(sample(row, concept, **values))
    found = {(one.learned, one.truth): one for one in agreements(samples, ["x", "y", "z"])}
    looks = found["dino_i", "identity_accuracy"]
    assert looks.within_concepts is not None
    assert looks.within_concepts.mean == pytest.approx(-1)
    assert looks.within_concepts.high == pytest.approx(-1)
    assert looks.over_cells is not None
    assert looks.over_cells > 0.8
    assert (looks.num_cells, looks.num_concepts) == (18, 6)
    assert found["dynamic_degree_gap", "motion_fidelity"].over_cells == pytest.approx(1), "less of a gap is better"
    assert found["dynamic_degree_gap", "motion_fidelity"].within_concepts.mean == pytest.approx(1)
    assert ("clip_i", "identity_accuracy") not in found


def test_the_front_holds_what_nothing_dominates() -> None:
    points = {"a": (0.1, 0.9), "b": (0.5, 0.5), "c": (0.4, 0.4), "d": (0.9, 0.1), "e": (0.1, 0.8), "f": (0.5, 0.5)}
    assert pareto_front(points) == ("a", "b", "f", "d")
    assert pareto_front({}) == ()


def test_a_comparison_holds_all_of_it_and_equal_samples_give_equal_numbers() -> None:
    rows = {"base": (0.0, 0.9), "x": (0.8, 0.6), "y": (0.4, 0.5), "ceiling": (1.0, 1.0), "chance": (0.1, 0.1)}
    samples = [
        sample(row, name, prompt, kind, identity_accuracy=identity, edit_accuracy=edit, dino_i=identity)
        for row, (identity, edit) in rows.items()
        for name in CONCEPTS
        for prompt, kind in (("here", "reconstruction"), ("there", "local"))
    ]
    slices = {"fast": CONCEPTS[:2], "slow": CONCEPTS[2:]}
    found = compared(samples, ["x", "y"], [ordering("above")], slices)
    assert list(found.tables) == [RECONSTRUCTION, EDITS]
    assert list(found.tables[EDITS]) == ["chance", "base", "x", "y", "ceiling"]
    assert found.trade_off is not None
    assert (found.trade_off.across, found.trade_off.up) == ("edit_accuracy", "identity_accuracy")
    assert found.trade_off.front == ("x", "base"), "y is worse than x in both"
    assert found.trade_off.points.keys() == {"base", "x", "y"}
    assert found.slice_sizes == {"fast": 2, "slow": 4}
    assert found.slices["fast"]["x"]["identity_accuracy"].num_concepts == 2
    assert found.differences[EDITS]["y"]["identity_accuracy"].mean == pytest.approx(-0.4)
    assert {one.against for one in found.wins} == {"y"}
    assert found.findings[0].verdict == "holds"
    assert compared(samples[::-1], ["x", "y"], [ordering("above")], slices) == found


def test_kinds_of_edits_stand_apart_where_there_are_both() -> None:
    on_it, around = {"x": 0.8, "y": 0.2}, {"x": 0.4, "y": 0.6}
    samples = [
        sample(row, name, prompt, kind, edit_accuracy=values[row])
        for prompt, kind, values in (("hat", "local", on_it), ("snow", "global", around))
        for row in values
        for name in CONCEPTS
    ]
    found = compared(samples, ["x", "y"])
    means = {
        kind: {row: cell["edit_accuracy"].mean for row, cell in rows.items()} for kind, rows in found.kinds.items()
    }
    assert means == {"local": pytest.approx(on_it), "global": pytest.approx(around)}
    changes = {group: rows["y"]["edit_accuracy"].mean for group, rows in found.differences.items() if rows}
    assert changes == pytest.approx({EDITS: -0.2, "local": -0.6, "global": 0.2})
    alone = compared([one for one in samples if one.kind == "local"], ["x", "y"])
    assert alone.kinds == {}
    assert list(alone.differences) == [RECONSTRUCTION, EDITS]


def test_both_at_once_is_read_in_each_sample() -> None:
    """Three prompts tell of obedience, one of them of identity too: it alone can tell both at once."""
    samples = []
    for name in CONCEPTS:
        for row, identity, edits in (("x", 0.5, (1, 0, 0)), ("y", 0.7, (1, 1, 0)), ("z", 0.5, (0, 0, 0))):
            samples.append(sample(row, name, "hat", "local", identity_accuracy=identity, edit_accuracy=edits[0]))
            samples += [sample(row, name, f"{i}", "local", edit_accuracy=edits[i]) for i in (1, 2)]
    told = compared(samples, ["x", "y", "z"]).trade_off
    assert told is not None
    (both,) = told.together
    assert both.metrics == ("identity_accuracy", "edit_accuracy"), "no motion was measured"
    assert {row: mean.mean for row, mean in both.means.items()} == pytest.approx({"x": 0.5, "y": 0.7, "z": 0.0})
    assert {row: gain.mean for row, gain in both.gains.items()} == pytest.approx({"y": 0.2, "z": -0.5})
    assert both.gains["y"].num_concepts == len(CONCEPTS)
    assert (both.gains["z"].low, both.gains["z"].high) == pytest.approx((-0.5, -0.5))


def test_with_motion_who_moves_otherwise_has_less_at_once() -> None:
    samples = []
    for name in CONCEPTS:
        for row, motion in (("x", 0.5), ("y", 1.0), ("z", -0.5)):
            samples.append(sample(row, name, identity_accuracy=0.8, edit_accuracy=1.0, motion_fidelity=motion))
            samples.append(sample(row, name, "zoom", identity_accuracy=0.8, edit_accuracy=0.0))
    told = compared(samples, ["x", "y", "z"]).trade_off
    assert told is not None
    both, whole = told.together
    assert {row: mean.mean for row, mean in both.means.items()} == pytest.approx(dict.fromkeys("xyz", 0.4))
    assert whole.metrics == ("identity_accuracy", "motion_fidelity", "edit_accuracy")
    assert {row: mean.mean for row, mean in whole.means.items()} == pytest.approx({"x": 0.4, "y": 0.8, "z": 0.0})
    assert {row: gain.mean for row, gain in whole.gains.items()} == pytest.approx({"y": 0.4, "z": -0.4})


def test_encoders_say_nothing_of_the_look_where_the_judge_does_not() -> None:
    """Asked for another colour, who keeps the old one looks more like the clip."""
    refused = to_score("identity_accuracy", Measurement(None, reason="another colour was asked for"), Trace())
    samples = []
    for name in CONCEPTS:
        for row, alike in (("x", 0.2), ("y", 0.9)):
            red = sample(row, name, "red", dino_i=alike, edit_accuracy=1.0)
            samples.append(red.model_copy(update={"scores": (*red.scores, refused)}))
            samples.append(sample(row, name, "hat", dino_i=0.5, identity_accuracy=0.5, edit_accuracy=1.0))
    cells = compared(samples, ["x", "y"]).tables[EDITS]
    assert [cells[row]["dino_i"].mean for row in "xy"] == [0.5, 0.5]
    assert cells["x"]["edit_accuracy"].num_values == 2 * len(CONCEPTS), "of the edit all tell"


def test_who_learned_nothing_is_no_proof_of_a_metric() -> None:
    rows = {"x": (0.5, 0.5), "y": (0.7, 0.4), "word": (0.0, 0.0), "chance": (0.0, 0.1)}
    samples = [
        sample(row, name, identity_accuracy=identity, dino_i=alike)
        for row, (identity, alike) in rows.items()
        for name in CONCEPTS
    ]
    (told,) = compared(samples, ["x", "y", "word"]).agreements[EDITS]
    assert (told.learned, told.num_cells, told.over_cells) == ("dino_i", 2 * len(CONCEPTS), pytest.approx(-1.0))


def test_without_truth_the_trade_off_is_what_encoders_see() -> None:
    samples = [sample(row, name, clip_t_aggregated=0.2, clip_i=0.5) for row in ("x", "base") for name in CONCEPTS]
    found = compared(samples, ["x"])
    assert found.trade_off is not None
    assert (found.trade_off.across, found.trade_off.up) == ("clip_t_aggregated", "clip_i")
    assert found.trade_off.together == (), "their scales are not one"
    assert found.wins == ()
    assert found.agreements == {RECONSTRUCTION: (), EDITS: ()}
    assert compared([], ["x"]).trade_off is None


def test_encoders_are_not_mixed() -> None:
    other = tuple(to_score("dino_i", Measurement(0.5), Trace(encoder=name)) for name in ("one", "two"))
    samples = [
        sample("x", name).model_copy(update={"scores": (score,)}) for name, score in zip("ab", other, strict=True)
    ]
    with pytest.raises(InputError, match="different encoders"):
        compared(samples, ["x"])
