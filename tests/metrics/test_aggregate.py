"""Tables from scores: hand-made cases, the interval's coverage, and the refusal to mix encoders."""

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.metrics import ScoredSample, paired_differences, summary
from pipeline_lib.metrics.aggregate import bootstrap_interval, in_group
from pipeline_lib.metrics.catalog import Measurement, Trace, to_score


def _sample(row: str, prompt: str, seed: int, encoder: str = "clip", **values: float | None) -> ScoredSample:
    scores = tuple(
        to_score(name, Measurement(value, "" if value is not None else "no such thing"), Trace(encoder=encoder))
        for name, value in values.items()
    )
    return ScoredSample(row=row, prompt=prompt, kind="local", seed=seed, scores=scores)


def test_means_missing_values_and_best_of_seeds_by_hand() -> None:
    samples = [
        _sample("base", "a", 0, clip_i=0.2, mse=0.5),
        _sample("base", "a", 1, clip_i=0.4, mse=0.1),
        _sample("base", "b", 0, clip_i=0.6, mse=None),
        _sample("ceiling", "a", 0, clip_i=0.9, mse=None),
    ]
    table = summary(samples)
    assert list(table) == ["base", "ceiling"]
    assert list(table["base"]) == ["clip_i", "mse"], "the catalog's order"
    cell = table["base"]["clip_i"]
    assert cell.mean == pytest.approx(0.4)
    assert cell.best_of_seeds == pytest.approx((0.4 + 0.6) / 2)
    assert (cell.num_samples, cell.num_missing) == (3, 0)
    errors = table["base"]["mse"]
    assert errors.mean == pytest.approx(0.3)
    assert errors.best_of_seeds == pytest.approx(0.1)
    assert (errors.num_samples, errors.num_missing, errors.reason) == (2, 1, "no such thing")
    missing = table["ceiling"]["mse"]
    assert (missing.mean, missing.low, missing.high, missing.best_of_seeds) == (None, None, None, None)
    assert missing.reason == "no such thing"
    assert (table["ceiling"]["clip_i"].low, table["ceiling"]["clip_i"].high) == (None, None)


def test_closer_metrics_have_no_best_seed() -> None:
    table = summary([_sample("base", "a", seed, dynamic_degree_dis=float(seed)) for seed in (0, 1)])
    assert table["base"]["dynamic_degree_dis"].best_of_seeds is None


def test_the_interval_of_equal_values_is_that_value() -> None:
    assert bootstrap_interval({("", str(index), 0): 0.25 for index in range(5)}, 0) == (0.25, 0.25)
    assert bootstrap_interval({("", str(index), 0): 0.25 for index in range(4)}, 0) is None


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(0, 1, (300, 30))
    hits = 0
    for index, row in enumerate(draws):
        low, high = bootstrap_interval({("", f"{place:02d}", 0): value for place, value in enumerate(row)}, index)
        hits += low <= 0 <= high
    assert 0.89 <= hits / len(draws) <= 0.98


def test_seeds_of_one_prompt_are_drawn_together() -> None:
    """Six prompts whose seeds agree hold six observations, however many seeds there are."""
    values = {("", prompt, seed): float(ord(prompt)) for prompt in "abcdef" for seed in range(50)}
    lone = {("", prompt, 0): float(ord(prompt)) for prompt in "abcdef"}
    assert bootstrap_interval(values, 0) == pytest.approx(bootstrap_interval(lone, 0))
    one_prompt = {("", "a", seed): float(seed % 2) for seed in range(100)}
    low, high = bootstrap_interval(one_prompt, 0)
    assert 0.35 < low < 0.45
    assert 0.55 < high < 0.65


def test_several_concepts_are_the_units() -> None:
    values = {(concept, prompt, 0): float(ord(concept)) for concept in "uvwxyz" for prompt in "abcdef"}
    lone = {(concept, "", 0): float(ord(concept)) for concept in "uvwxyz"}
    assert bootstrap_interval(values, 0) == pytest.approx(bootstrap_interval(lone, 0))
    two_concepts = {(concept, prompt, 0): 0.0 for concept in "uv" for prompt in "abcdef"}
    assert bootstrap_interval(two_concepts, 0) is None


def test_the_order_of_samples_changes_nothing() -> None:
    draws = np.random.default_rng(1).uniform(0, 1, 12)
    samples = [_sample("base", f"p{index % 4}", index, clip_i=value) for index, value in enumerate(draws)]
    assert summary(samples) == summary(samples[::-1])
    apart = {("", f"p{index}", 0): value for index, value in enumerate(draws)}
    assert bootstrap_interval(apart, 1) != bootstrap_interval(apart, 0)


def _pairs(differences: list[float], metric: str = "clip_i") -> list[ScoredSample]:
    samples = []
    for index, difference in enumerate(differences):
        samples.append(_sample("base", f"p{index}", 0, **{metric: 0.3 + 0.05 * (index % 3)}))
        samples.append(_sample("personalised", f"p{index}", 0, **{metric: 0.3 + 0.05 * (index % 3) + difference}))
    return samples


def test_a_paired_difference_is_seen_through_the_spread_of_prompts() -> None:
    found = paired_differences(_pairs([0.02, 0.01, 0.015, 0.02, 0.012]), "personalised", "base")["clip_i"]
    assert found.mean == pytest.approx(0.0154)
    assert found.num_pairs == 5
    assert not found.inside_noise
    assert found.better is True
    worse = paired_differences(_pairs([0.02, 0.01, 0.015, 0.02, 0.012], "mse"), "personalised", "base")["mse"]
    assert worse.better is False


def test_a_difference_inside_the_noise_is_neither_better_nor_worse() -> None:
    noisy = paired_differences(_pairs([0.2, -0.2, 0.1, -0.15, 0.05]), "personalised", "base")["clip_i"]
    assert noisy.inside_noise
    assert noisy.better is None
    lone = paired_differences(_pairs([0.2]), "personalised", "base")["clip_i"]
    assert lone.inside_noise, "a single pair has no interval"
    few = paired_differences(_pairs([0.2, 0.21, 0.2, 0.22]), "personalised", "base")["clip_i"]
    assert few.inside_noise, "four of equal sign happen by luck too often"
    assert few.num_units == 4
    same = paired_differences(_pairs([0.0, 0.0, 0.0]), "personalised", "base")["clip_i"]
    assert same.inside_noise


def test_only_pairs_count() -> None:
    samples = [*_pairs([0.1, 0.2]), _sample("personalised", "alone", 0, clip_i=0.9), _sample("base", "a", 7, mse=0.1)]
    found = paired_differences(samples, "personalised", "base")
    assert set(found) == {"clip_i"}
    assert found["clip_i"].num_pairs == 2
    assert paired_differences(samples, "personalised", "ceiling") == {}


def test_encoders_are_never_mixed_in_one_column() -> None:
    samples = [_sample("base", "a", 0, "clip", clip_i=0.1), _sample("personalised", "a", 0, "pocket", clip_i=0.9)]
    for call in (lambda: summary(samples), lambda: paired_differences(samples, "personalised", "base")):
        with pytest.raises(InputError, match="scores of clip_i come from different encoders"):
            call()
    unknown = [_sample("base", "a", 0, "clip", clip_i=0.1), _sample("personalised", "a", 0, "", clip_i=None)]
    assert summary(unknown)["personalised"]["clip_i"].mean is None


def test_a_prompt_that_was_asked_twice_counts_once() -> None:
    samples = [_sample("base", prompt, 0, clip_i=value) for prompt, value in (("a", 0.1), ("a", 0.3), ("b", 0.8))]
    cell = summary(samples)["base"]["clip_i"]
    assert cell.mean == pytest.approx(0.5)
    assert cell.num_samples == 3


def test_one_prompt_with_two_negatives_is_two_prompts() -> None:
    samples = [
        _sample(row, "a", 0, clip_i=value).model_copy(update={"negative": negative})
        for row, negative, value in (("base", "", 0.1), ("base", "blur", 0.5), ("personalised", "blur", 0.6))
    ]
    found = paired_differences(samples, "personalised", "base")["clip_i"]
    assert found.num_pairs == 1
    assert found.mean == pytest.approx(0.1)
    assert summary(samples)["base"]["clip_i"].best_of_seeds == pytest.approx(0.3)


def test_what_is_missing_is_told_before_what_is_noted() -> None:
    notes = [_sample("base", name, 0, mse=0.1) for name in "abc"]
    near = [sample.scores[0].model_copy(update={"reason": f"nearest is {i // 2}"}) for i, sample in enumerate(notes)]
    noted = [sample.model_copy(update={"scores": (score,)}) for sample, score in zip(notes, near, strict=True)]
    assert summary(noted)["base"]["mse"].reason == "nearest is 0 (2 of 3 samples)"
    assert summary(noted[:2])["base"]["mse"].reason == "nearest is 0"
    assert summary([*noted, _sample("base", "d", 0, mse=None)])["base"]["mse"].reason == "no such thing"


def test_the_truth_has_a_ceiling_of_its_own_beside_edits() -> None:
    samples = [
        _sample("ceiling", "clip", 0, clip_i=0.9, identity_accuracy=0.8).model_copy(update={"kind": "reconstruction"}),
        _sample("ceiling", "e", 0, identity_accuracy=0.4, edit_accuracy=1.0),
        _sample("ceiling", "f", 0, identity_accuracy=None, edit_accuracy=0.5),
        *(_sample("chance", "e", seed, edit_accuracy=value) for seed, value in enumerate((0.0, 0.0, 1.0, 0.0))),
    ]
    rebuilt, edits = (summary(in_group(samples, kind)) for kind in (True, False))
    assert (rebuilt["ceiling"]["identity_accuracy"].mean, "chance" in rebuilt) == (0.8, False)
    identity = edits["ceiling"]["identity_accuracy"]
    assert (identity.mean, identity.num_samples, identity.num_missing) == (0.4, 1, 1)
    assert edits["ceiling"]["edit_accuracy"].mean == 0.75
    looks = edits["ceiling"]["clip_i"]
    assert (looks.mean, looks.num_missing) == (0.9, 0), "clips that were not scored by it are not missing"
    assert edits["chance"]["edit_accuracy"].mean == 0.25
    assert edits["chance"]["clip_i"].reason == "not measured"


def test_the_ceiling_of_edits_is_what_was_asked_for_wherever_that_was_scored() -> None:
    def of(concept: str, *samples: ScoredSample) -> list[ScoredSample]:
        return [sample.model_copy(update={"concept": concept}) for sample in samples]

    reference = _sample("ceiling", "clip", 0, clip_i=0.9, mse=0.01).model_copy(update={"kind": "reconstruction"})
    asked_for = _sample("ceiling", "e", 0, clip_i=0.5, clip_t_mean=0.7)
    samples = [*of("a", reference, asked_for), *of("b", reference)]
    edits = in_group(samples, False)
    own = {name: summary([s for s in edits if s.concept == name])["ceiling"] for name in "ab"}
    assert (own["a"]["clip_i"].mean, own["b"]["clip_i"].mean) == (0.5, 0.9), "of b no such clip was scored"
    assert own["a"]["clip_t_mean"].mean == 0.7
    assert (own["a"]["mse"].mean, own["a"]["mse"].reason) == (None, "the ceiling shows the reference, not an edit")


def test_groups_share_the_ceiling_but_not_what_a_prompt_enters() -> None:
    samples = [
        _sample("base", "r", 0, clip_i=0.1, mse=0.2).model_copy(update={"kind": "reconstruction"}),
        _sample("base", "e", 0, clip_i=0.3),
        _sample("ceiling", "clip", 0, clip_i=0.9, mse=0.01).model_copy(update={"kind": "reconstruction"}),
    ]
    rebuilt, edits = (summary(in_group(samples, kind)) for kind in (True, False))
    assert (rebuilt["base"]["clip_i"].mean, edits["base"]["clip_i"].mean) == (0.1, 0.3)
    assert (rebuilt["ceiling"]["mse"].mean, edits["ceiling"]["mse"].mean) == (0.01, None)
    assert edits["ceiling"]["clip_i"].mean == 0.9
