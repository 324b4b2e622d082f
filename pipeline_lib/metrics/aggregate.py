"""From scores of samples to a table: means with bootstrap intervals, best of seeds, paired differences.

The interval is a percentile bootstrap over independent units: concepts when there are several, else prompts,
else samples. Samples of one unit (other seeds of one prompt) are drawn together, because they are not independent.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.metrics.catalog import CATALOG
from pipeline_lib.records import Record, Score
from pipeline_lib.seeding import derived_seed

NUM_RESAMPLES = 4000
COVERAGE = 0.95
FEWEST_UNITS = 5
"""Fewer units give no interval, and a difference counts as noise: four of equal sign happen one time in eight."""

NOT_MEASURED = "not measured"


class ScoredSample(Record):
    """One sample's scores and where it stands in the table.

    `row` is the table's row: `base`, `personalised`, `ceiling`, `chance`, or another name such as `lora`.
    The ceiling has one sample for each window of the reference, with the window's name as its prompt; where the
    truth is known, also one for each edit prompt: the clip that it asks for. Chance is known there, too: a sample for
    each prompt and each other concept, numbered by `seed`.
    """

    row: str
    prompt: str
    kind: str
    seed: int
    scores: tuple[Score, ...]
    concept: str = ""
    negative: str = ""


class Summary(Record):
    """One cell of the table: one metric of one row.

    `low` and `high` bound the 95 % interval; both are None where fewer than `FEWEST_UNITS` units give none.
    `num_missing` samples had no value; `reason` is their most frequent reason, else the most frequent note. A sample
    that was not scored by this metric at all does not count where others of the row were.
    """

    metric: str
    mean: float | None
    low: float | None = None
    high: float | None = None
    best_of_seeds: float | None = None
    num_samples: int
    num_missing: int
    reason: str = ""
    encoder: str = ""
    encoder_digest: str = ""
    preprocessing: str = ""


class Difference(Record):
    """A row minus another row on the same concepts, prompts and seeds.

    `num_units`: independent units behind the interval. `inside_noise`: the interval holds 0, or there is none.
    `better`: whether the difference goes the better way; None inside the noise and for metrics without one.
    """

    metric: str
    row: str
    against: str
    mean: float
    low: float | None
    high: float | None
    num_pairs: int
    num_units: int
    inside_noise: bool
    better: bool | None


def in_group(samples: Sequence[ScoredSample], rebuilt: bool) -> list[ScoredSample]:
    """Samples of reconstruction prompts, or of all others.

    The ceiling of edits is the clips that they ask for. In what no such clip of a concept was scored by, it is the
    reference, but for the truth and scores that a prompt enters: it does not show the edit.
    """
    edited = {
        (sample.concept, score.metric)
        for sample in samples
        if sample.row == "ceiling" and sample.kind != "reconstruction"
        for score in sample.scores
    }
    chosen = []
    for sample in samples:
        if (sample.kind == "reconstruction") == rebuilt:
            chosen.append(sample)
        elif sample.row == "ceiling" and not rebuilt:
            scores = (s for s in sample.scores if (sample.concept, s.metric) not in edited)
            scores = (s for s in scores if CATALOG[s.metric].source != "truth")
            kept = tuple(_without_value(s) if s.metric.startswith(("clip_t", "mse")) else s for s in scores)
            chosen += [sample.model_copy(update={"scores": kept})] if kept else []
    return chosen


def summary(samples: Sequence[ScoredSample], seed: int = 0) -> dict[str, dict[str, Summary]]:
    """The table: row → metric → cell.

    Args:
        samples: scored samples of any rows; their order is of no meaning.
        seed: of the bootstrap.

    Returns:
        A cell for every row and every metric that any sample has.

    Raises:
        InputError: a metric's scores come from different encoders or preprocessings.
    """
    check_one_encoder(samples)
    rows: dict[str, list[ScoredSample]] = defaultdict(list)
    for sample in samples:
        rows[sample.row].append(sample)
    metrics = _metrics_of(samples)
    return {row: {metric: _cell(metric, members, seed) for metric in metrics} for row, members in rows.items()}


def paired_differences(samples: Sequence[ScoredSample], row: str, against: str, seed: int = 0) -> dict[str, Difference]:
    """Per metric the mean of `row` minus `against`, over pairs of equal concept, prompt and seed.

    Args:
        samples: scored samples.
        row: the row of interest, e.g. `personalised`.
        against: the row it is compared with, e.g. `base`.
        seed: of the bootstrap.

    Returns:
        Metrics for which at least one pair has both values.

    Raises:
        InputError: a metric's scores come from different encoders or preprocessings.
    """
    check_one_encoder(samples)
    differences = {}
    for metric in _metrics_of(samples):
        ours, theirs = values_by_key(samples, row, metric), values_by_key(samples, against, metric)
        pairs = {key: ours[key] - theirs[key] for key in ours.keys() & theirs.keys()}
        if not pairs:
            continue
        mean = float(np.mean([pairs[key] for key in sorted(pairs)]))
        interval = bootstrap_interval(pairs, seed)
        noise = interval is None or interval[0] <= 0 <= interval[1]
        direction = CATALOG[metric].direction
        better = None if noise or direction == "closer" else (mean > 0) == (direction == "higher")
        low, high = interval or (None, None)
        differences[metric] = Difference(
            metric=metric,
            row=row,
            against=against,
            mean=mean,
            low=low,
            high=high,
            num_pairs=len(pairs),
            num_units=len({key[: _unit_depth(pairs)] for key in pairs}),
            inside_noise=noise,
            better=better,
        )
    return differences


Key = tuple[str, str, int]
"""(concept, prompt, seed): what makes two samples a pair."""


def values_by_key(samples: Iterable[ScoredSample], row: str, metric: str) -> dict[Key, float]:
    """Values by what makes a pair; a prompt that was asked twice with one seed counts once, with its mean.

    Args:
        samples: scored samples of any rows.
        row: whose values are wanted.
        metric: which.

    Returns:
        A value for each concept, prompt and seed that has one.
    """
    values: dict[Key, list[float]] = defaultdict(list)
    for sample in samples:
        for score in sample.scores if sample.row == row else ():
            if score.metric == metric and score.value is not None:
                prompt = f"{sample.prompt}\nnot {sample.negative}" if sample.negative else sample.prompt
                values[sample.concept, prompt, sample.seed].append(score.value)
    return {key: math.fsum(found) / len(found) for key, found in values.items()}


def unit_means(values: Mapping[Key, float]) -> list[float]:
    """One value for each independent unit: concepts when there are several, else prompts, else samples.

    Args:
        values: one per (concept, prompt, seed).

    Returns:
        The mean of each unit, in order of its name.
    """
    units, depth = defaultdict(list), _unit_depth(values)
    for key in sorted(values):
        units[key[:depth]].append(values[key])
    return [math.fsum(members) / len(members) for members in units.values()]


def bootstrap_interval(values: Mapping[Key, float], seed: int) -> tuple[float, float] | None:
    """The 95 % percentile interval of the mean, or None with fewer than `FEWEST_UNITS` units.

    Args:
        values: one per (concept, prompt, seed).
        seed: of the resampling; equal seeds and values give equal bits.

    Returns:
        Low and high end.
    """
    units: dict[tuple[str | int, ...], list[float]] = defaultdict(list)
    depth = _unit_depth(values)
    for key in sorted(values):
        units[key[:depth]].append(values[key])
    if len(units) < FEWEST_UNITS:
        return None
    sums = np.array([sum(members) for members in units.values()])
    counts = np.array([len(members) for members in units.values()])
    draws = np.random.default_rng(derived_seed(seed, "bootstrap", len(units)))
    chosen = draws.integers(0, len(units), (NUM_RESAMPLES, len(units)))
    means = sums[chosen].sum(1) / counts[chosen].sum(1)
    low, high = np.quantile(means, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def check_one_encoder(samples: Iterable[ScoredSample]) -> None:
    """A column is one metric; its numbers compare only when one encoder made them all.

    Args:
        samples: of any rows; scores without a value do not count.

    Raises:
        InputError: a metric's scores come from different encoders or preprocessings.
    """
    seen: dict[str, tuple[str, str, str]] = {}
    for sample in samples:
        for score in sample.scores:
            if score.value is None:
                continue
            trace = (score.encoder, score.encoder_digest, score.preprocessing)
            first = seen.setdefault(score.metric, trace)
            if first != trace:
                raise InputError(
                    f"scores of {score.metric} come from different encoders",
                    got=f"{trace} after {first}",
                    fix="score all samples with one encoder and one preprocessing",
                )


def _cell(metric: str, samples: Sequence[ScoredSample], seed: int) -> Summary:
    scores = [score for sample in samples for score in sample.scores if score.metric == metric]
    values = values_by_key(samples, samples[0].row, metric)
    with_value = [score for score in scores if score.value is not None]
    low, high = (bootstrap_interval(values, seed) if values else None) or (None, None)
    trace = with_value[0] if with_value else None
    return Summary(
        metric=metric,
        mean=float(np.mean([values[key] for key in sorted(values)])) if values else None,
        low=low,
        high=high,
        best_of_seeds=None if samples[0].row == "chance" else _best_of_seeds(metric, values),
        num_samples=len(with_value),
        num_missing=(len(scores) or len(samples)) - len(with_value),
        reason=_reason(scores) if scores else NOT_MEASURED,
        encoder=trace.encoder if trace else "",
        encoder_digest=trace.encoder_digest if trace else "",
        preprocessing=trace.preprocessing if trace else "",
    )


def _reason(scores: Sequence[Score]) -> str:
    """Why values are missing; where none is, what is noted of them, and of how many when not of all."""
    missing = Counter(score.reason for score in scores if score.value is None)
    if missing:
        return missing.most_common(1)[0][0]
    notes = Counter(score.reason for score in scores if score.reason)
    if not notes:
        return ""
    note, count = notes.most_common(1)[0]
    return note if count == len(scores) else f"{note} ({count} of {len(scores)} samples)"


def _without_value(score: Score) -> Score:
    return score.model_copy(update={"value": None, "reason": "the ceiling shows the reference, not an edit"})


def _best_of_seeds(metric: str, values: Mapping[Key, float]) -> float | None:
    direction = CATALOG[metric].direction
    if not values or direction == "closer":
        return None
    prompts: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (concept, prompt, _), value in sorted(values.items()):
        prompts[concept, prompt].append(value)
    best = max if direction == "higher" else min
    return float(np.mean([best(members) for members in prompts.values()]))


def _unit_depth(values: Iterable[Key]) -> int:
    """How much of (concept, prompt, seed) names a unit: the first part in which the keys differ."""
    keys = list(values)
    return next((depth for depth in (1, 2) if len({key[:depth] for key in keys}) > 1), 3)


def _metrics_of(samples: Iterable[ScoredSample]) -> list[str]:
    present = {score.metric for sample in samples for score in sample.scores}
    return [name for name in CATALOG if name in present]
