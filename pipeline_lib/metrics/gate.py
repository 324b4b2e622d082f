"""The gate: whether a challenger's scores let it take the champion's place.

Both are scored by the same encoders against the same reference. A difference counts where its interval does not hold
0: Student's, over prompts that both were sampled with; where the two share none, where their own intervals do not meet.
With k metrics each interval is one of 1 - 0.05 / k (Bonferroni), so that all of them hold together 95 times in 100.
A challenger that is just as good as the champion takes its place by chance at most once in 40 times, as far as the
differences of prompts are drawn from a normal distribution. The rule:

- No champion: the challenger comes in unless nothing of the gate was measured, or it looks less like the subject than
  its own untrained base does.
- A champion: the challenger takes its place when no metric of the gate is worse and at least one is better.

What cannot be told, as with fewer than five prompts, is never better: the champion stays.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from pipeline_lib.errors import InputError
from pipeline_lib.metrics.aggregate import (
    COVERAGE,
    FEWEST_UNITS,
    Key,
    ScoredSample,
    check_one_encoder,
    unit_means,
    values_by_key,
)
from pipeline_lib.metrics.catalog import CATALOG
from pipeline_lib.metrics.t_interval import t_interval
from pipeline_lib.records import Comparison, Decision

TRUTH = ("identity_accuracy", "motion_fidelity", "edit_accuracy")
LEARNED = ("dino_i", "clip_i", "clip_t_aggregated", "dynamic_degree_gap")
PIXELS = ("mse", "dynamic_degree_gap")
LOOKS = ("identity_accuracy", "dino_i", "clip_i", "mse")
"""Those of the gate that tell looks: what a first champion must not be worse at than its base."""

CHALLENGER, CHAMPION = "challenger", "champion"
Verdict = Literal["better", "worse", "even", "unknown"]
Interval = tuple[float, float]


def gate_metrics(measured: Collection[str]) -> tuple[str, ...]:
    """The metrics that the gate looks at: the truth where it is known, else what encoders see, else pixels.

    Args:
        measured: metrics with a value on both sides.

    Returns:
        Those of them that count, in the order of the gate.
    """
    families = (TRUTH, LEARNED if {"dino_i", "clip_i"} & set(measured) else PIXELS)
    return next((found for names in families if (found := tuple(n for n in names if n in measured))), ())


def first_champion(scores: Sequence[ScoredSample]) -> Decision:
    """Whether a concept without a champion takes this one.

    Args:
        scores: of the challenger's run, with the row `base` beside `personalised`.

    Returns:
        The decision, against the untrained base.
    """
    comparisons = _compared(scores, "personalised", "base")
    if not comparisons:
        return Decision(passed=False, against="base", reason="was not scored by any metric of the gate")
    worse = [one for one in comparisons if one.verdict == "worse" and one.metric in LOOKS]
    reason = f"is worse than its own base in {_listed(worse)}" if worse else "is the first"
    return Decision(passed=not worse, against="base", reason=reason, comparisons=comparisons)


def against_champion(challenger: Sequence[ScoredSample], champion: Sequence[ScoredSample]) -> Decision:
    """Whether a challenger takes the champion's place.

    Args:
        challenger: scores of its run; the row `personalised` counts.
        champion: the same of the champion, by the same encoders.

    Returns:
        The decision; a refusal that says so where the scores come from different encoders.
    """
    both = [*_as(CHALLENGER, challenger), *_as(CHAMPION, champion)]
    try:
        comparisons = _compared(both, CHALLENGER, CHAMPION)
    except InputError as error:
        return Decision(passed=False, against="champion", reason=f"cannot be compared: {error}")
    passed, reason = _judged(comparisons)
    return Decision(passed=passed, against="champion", reason=reason, comparisons=comparisons)


def _judged(comparisons: Sequence[Comparison]) -> tuple[bool, str]:
    if not comparisons:
        return False, "has no metric of the gate in common with the champion"
    worse = [one for one in comparisons if one.verdict == "worse"]
    better = [one for one in comparisons if one.verdict == "better"]
    if worse:
        return False, f"is worse in {_listed(worse)}" + (f", though better in {_listed(better)}" if better else "")
    if better:
        return True, f"is better in {_listed(better)}, and worse in nothing"
    if all(one.verdict == "unknown" for one in comparisons):
        return False, f"cannot be told from the champion: that takes {FEWEST_UNITS} prompts that both were sampled with"
    return False, f"is better in nothing beyond its interval: {_listed(comparisons)}"


def _compared(samples: Sequence[ScoredSample], row: str, other: str) -> tuple[Comparison, ...]:
    chosen = [sample for sample in samples if sample.row in (row, other)]
    check_one_encoder(chosen)
    ours, theirs = _by_metric(chosen, row), _by_metric(chosen, other)
    metrics = gate_metrics(ours.keys() & theirs.keys())
    return tuple(_comparison(metric, ours[metric], theirs[metric], (1 - COVERAGE) / len(metrics)) for metric in metrics)


def _comparison(metric: str, ours: Mapping[Key, float], theirs: Mapping[Key, float], error_rate: float) -> Comparison:
    shared = sorted(ours.keys() & theirs.keys())
    if shared:
        ours, theirs = {key: ours[key] for key in shared}, {key: theirs[key] for key in shared}
        between = _interval({key: ours[key] - theirs[key] for key in shared}, error_rate)
        verdict = _verdict(metric, between)
    else:
        between = None
        verdict = _verdict(metric, _apart(_interval(ours, error_rate), _interval(theirs, error_rate)))
    mean, other_mean = _mean(ours), _mean(theirs)
    low, high = between or (None, None)
    return Comparison(
        metric=metric,
        challenger=mean,
        other=other_mean,
        difference=mean - other_mean,
        low=low,
        high=high,
        num_pairs=len(shared),
        verdict=verdict,
    )


def _by_metric(samples: Sequence[ScoredSample], row: str) -> dict[str, dict[Key, float]]:
    """Values of a row, of those metrics that have any."""
    return {metric: values for metric in CATALOG if (values := values_by_key(samples, row, metric))}


def _interval(values: Mapping[Key, float], error_rate: float) -> Interval | None:
    units = unit_means(values)
    return t_interval(units, error_rate) if len(units) >= FEWEST_UNITS else None


def _mean(values: Mapping[Key, float]) -> float:
    units = unit_means(values)
    return math.fsum(units) / len(units)


def _verdict(metric: str, difference: Interval | None) -> Verdict:
    if difference is None:
        return "unknown"
    low, high = difference
    direction = CATALOG[metric].direction
    if low <= 0 <= high or direction == "closer":
        return "even"
    return "better" if (low > 0) == (direction == "higher") else "worse"


def _apart(ours: Interval | None, theirs: Interval | None) -> Interval | None:
    """What two intervals leave for the difference of two means that no pair connects."""
    if ours is None or theirs is None:
        return None
    return ours[0] - theirs[1], ours[1] - theirs[0]


def _as(row: str, samples: Sequence[ScoredSample]) -> list[ScoredSample]:
    chosen = (sample for sample in samples if sample.row == "personalised")
    return [sample.model_copy(update={"row": row, "concept": ""}) for sample in chosen]


def _listed(comparisons: Sequence[Comparison]) -> str:
    return ", ".join(map(_told, comparisons))


def _told(one: Comparison) -> str:
    decimals = CATALOG[one.metric].decimals
    text = f"{CATALOG[one.metric].short} {one.difference:+.{decimals}f}"
    return text if one.low is None else f"{text} ({one.low:+.{decimals}f} to {one.high:+.{decimals}f})"
