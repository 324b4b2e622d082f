"""The gate's rule, on scores whose right answer is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from scipy.stats import t as student

from pipeline_lib.metrics.aggregate import ScoredSample
from pipeline_lib.metrics.catalog import CATALOG, Measurement, Trace, to_score
from pipeline_lib.metrics.gate import LEARNED, against_champion, first_champion, gate_metrics
from pipeline_lib.metrics.t_interval import t_interval, t_quantile
from pipeline_lib.records import Decision

PROMPTS = [f"a {{subject}} number {number}" for number in range(8)]
# What every mean is moved by: any two prompts differ by much more than the differences under test.
SPREAD = [0.02 * number for number in range(8)]


def scored(
    means: Mapping[str, float],
    *,
    row: str = "personalised",
    prompts: Sequence[str] = PROMPTS,
    digest: str = "one",
    wobble: float = 0.0,
) -> list[ScoredSample]:
    """Samples of a row; `wobble` moves them up and down in turn, without moving the mean."""
    trace = Trace(encoder="e", encoder_digest=digest)
    return [
        ScoredSample(
            row=row,
            prompt=prompt,
            kind="user",
            seed=0,
            concept="fox",
            scores=tuple(
                to_score(
                    name,
                    Measurement(mean + SPREAD[index] + (wobble if index % 2 else -wobble)),
                    trace if CATALOG[name].source != "flow" else Trace(),
                    high=100.0 if name == "dynamic_degree_gap" else None,
                )
                for name, mean in means.items()
            ),
        )
        for index, prompt in enumerate(prompts)
    ]


CHAMPION = {"dino_i": 0.5, "clip_t_aggregated": 0.3, "dynamic_degree_gap": 2.0}


@pytest.mark.parametrize(
    ("challenger", "passed", "said"),
    [
        ({"dino_i": 0.6}, True, "better in DINO-I +0.100"),
        ({"dynamic_degree_gap": 1.0}, True, "better in DD gap -1.00"),
        ({"dino_i": 0.6, "clip_t_aggregated": 0.25}, False, "worse in C-T -0.050"),
        ({"dino_i": 0.45}, False, "worse in DINO-I"),
        ({"dynamic_degree_gap": 3.0}, False, "worse in DD gap +1.00"),
        ({}, False, "better in nothing"),
    ],
)
def test_better_in_one_and_worse_in_none(challenger: dict[str, float], passed: bool, said: str) -> None:
    decision = against_champion(scored({**CHAMPION, **challenger}), scored(CHAMPION))
    assert decision.passed is passed
    assert said in decision.reason
    assert [one.metric for one in decision.comparisons] == [name for name in LEARNED if name in CHAMPION]
    assert all(one.num_pairs == len(PROMPTS) for one in decision.comparisons)


def test_a_difference_inside_its_interval_moves_nothing() -> None:
    decision = against_champion(scored({"dino_i": 0.51}, wobble=0.1), scored({"dino_i": 0.5}))
    (only,) = decision.comparisons
    assert only.low is not None
    assert only.high is not None
    assert only.low < 0 < only.high
    assert only.verdict == "even"
    assert not decision.passed


def test_more_metrics_take_more_to_tell() -> None:
    alone = against_champion(scored({"dino_i": 0.6}, wobble=0.1), scored({"dino_i": 0.5}))
    assert alone.comparisons[0].verdict == "better"
    among = against_champion(scored({**CHAMPION, "dino_i": 0.6}, wobble=0.1), scored(CHAMPION))
    assert [one.verdict for one in among.comparisons] == ["even", "even", "even"]


def test_means_are_over_the_pairs() -> None:
    alone = scored({"dino_i": 0.0}, prompts=["a {subject} that the champion was not sampled with"])
    (only,) = against_champion([*scored({"dino_i": 0.6}), *alone], scored({"dino_i": 0.5})).comparisons
    assert only.num_pairs == len(PROMPTS)
    assert only.challenger - only.other == pytest.approx(only.difference) == pytest.approx(0.1)
    assert only.challenger == pytest.approx(0.6 + np.mean(SPREAD))


@pytest.mark.parametrize("degrees", [1, 2, 4, 5, 30, 199])
@pytest.mark.parametrize("error_rate", [0.05, 0.05 / 4])
def test_quantiles_are_students(degrees: int, error_rate: float) -> None:
    assert t_quantile(error_rate, degrees) == pytest.approx(student.ppf(1 - error_rate / 2, degrees), rel=1e-9)


def test_five_values_miss_their_mean_as_often_as_is_said() -> None:
    draws = np.random.default_rng(0).normal(size=(4000, 5))
    missed = np.mean([not low <= 0 <= high for low, high in (t_interval(row.tolist(), 0.05) for row in draws)])
    assert 0.04 < missed < 0.06, "a percentile bootstrap misses it one time in six"


def test_fewer_prompts_than_an_interval_takes_leave_the_champion() -> None:
    decision = against_champion(scored({"dino_i": 0.9}, prompts=PROMPTS[:4]), scored({"dino_i": 0.1}))
    assert not decision.passed
    assert "takes 5 prompts" in decision.reason


@pytest.mark.parametrize(("mean", "passed"), [(0.8, True), (0.52, False), (0.1, False)])
def test_without_a_common_prompt_the_intervals_must_not_meet(mean: float, passed: bool) -> None:
    others = [f"{prompt}, other" for prompt in PROMPTS]
    decision = against_champion(scored({"dino_i": mean}, prompts=others), scored({"dino_i": 0.5}))
    assert decision.passed is passed
    assert decision.comparisons[0].num_pairs == 0


def test_other_encoders_are_not_compared() -> None:
    decision = against_champion(scored({"dino_i": 0.8}, digest="two"), scored({"dino_i": 0.1}))
    assert not decision.passed
    assert "different encoders" in decision.reason


def test_the_first_one_must_not_look_worse_than_its_base() -> None:
    base = scored({"dino_i": 0.5, "clip_t_aggregated": 0.3}, row="base")
    fine = first_champion([*scored({"dino_i": 0.6, "clip_t_aggregated": 0.2}), *base])
    assert fine.passed, "less of the prompt is what learning a subject costs"
    worse = first_champion([*scored({"dino_i": 0.4, "clip_t_aggregated": 0.3}), *base])
    assert not worse.passed
    assert "worse than its own base in DINO-I -0.100" in worse.reason
    assert not first_champion(scored({"temporal_flickering": 0.5})).passed, "nothing of the gate was measured"


def test_the_truth_alone_speaks_where_it_is_known() -> None:
    assert gate_metrics({"identity_accuracy", "dino_i", "mse"}) == ("identity_accuracy",)
    assert gate_metrics({"dino_i", "mse", "dynamic_degree_gap"}) == ("dino_i", "dynamic_degree_gap")
    assert gate_metrics({"mse", "dynamic_degree_gap", "temporal_flickering"}) == ("mse", "dynamic_degree_gap")
    assert gate_metrics({"temporal_flickering"}) == ()


def test_a_decision_survives_being_written_down() -> None:
    decision = against_champion(scored({"dino_i": 0.6}), scored({"dino_i": 0.5}))
    assert Decision.model_validate_json(decision.model_dump_json()) == decision
