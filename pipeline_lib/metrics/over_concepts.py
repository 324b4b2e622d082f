"""Means over concepts: the interval says what other concepts would have given, or there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pipeline_lib.metrics.aggregate import (
    COVERAGE,
    FEWEST_UNITS,
    Key,
    ScoredSample,
    bootstrap_interval,
    values_by_key,
)
from pipeline_lib.metrics.catalog import CATALOG
from pipeline_lib.metrics.t_interval import t_interval
from pipeline_lib.records import Record

EVEN = 1e-9
"""Differences up to here are none."""


class ConceptMean(Record):
    """A mean, and its 95 % intervals over concepts: the bootstrap's, and Student's beside it.

    The ends are None with fewer than `FEWEST_UNITS` concepts: an interval over prompts or seeds would say nothing of
    other concepts. `num_above`: concepts whose own mean is above 0; of a difference all that so few can tell. None in
    records from before it was counted.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    student_low: float | None = None
    student_high: float | None = None
    num_concepts: int
    num_values: int
    num_above: int | None = None

    @property
    def surely_within(self) -> tuple[float, float] | None:
        """What both intervals hold between them: the bootstrap over eight concepts is a fifth narrower.

        An end that is none but for rounding is 0: differences of thirds that cancel out decide nothing.
        """
        ends = self.low, self.high, self.student_low, self.student_high
        known = [0.0 if abs(end) <= EVEN else end for end in ends if end is not None]
        return (min(known), max(known)) if known else None


Cells = dict[str, dict[str, ConceptMean]]
"""Row → metric → mean; what was not measured is not there."""


def mean_over_concepts(values: Mapping[Key, float], seed: int = 0) -> ConceptMean | None:
    """The mean over concepts of each concept's mean; the interval draws concepts.

    Args:
        values: one per (concept, prompt, seed).
        seed: of the bootstrap.

    Returns:
        The mean; None without values.
    """
    if not values:
        return None
    means = by_concept(values)
    enough = len(means) >= FEWEST_UNITS
    units = {(concept, "", 0): mean for concept, mean in means.items()}
    low, high = (bootstrap_interval(units, seed) if enough else None) or (None, None)
    student = t_interval(list(means.values()), 1 - COVERAGE) if enough else (None, None)
    return ConceptMean(
        mean=math.fsum(means.values()) / len(means),
        low=low,
        high=high,
        student_low=student[0],
        student_high=student[1],
        num_concepts=len(means),
        num_values=len(values),
        num_above=sum(mean > EVEN for mean in means.values()),
    )


def by_concept(values: Mapping[Key, float]) -> dict[str, float]:
    """The mean of each concept's values, in order of the names."""
    grouped: dict[str, list[float]] = {}
    for key in sorted(values):
        grouped.setdefault(key[0], []).append(values[key])
    return {concept: math.fsum(members) / len(members) for concept, members in grouped.items()}


def over_seeds(values: Mapping[Key, float]) -> dict[Key, float]:
    """The mean of each prompt's values, as of seed 0."""
    grouped: dict[Key, list[float]] = {}
    for concept, prompt, seed in sorted(values):
        grouped.setdefault((concept, prompt, 0), []).append(values[concept, prompt, seed])
    return {key: math.fsum(members) / len(members) for key, members in grouped.items()}


def concept_means(samples: Sequence[ScoredSample], rows: Sequence[str]) -> Cells:
    """The table of some rows.

    Args:
        samples: scored samples of one group of prompts.
        rows: which, in order.

    Returns:
        Those rows and metrics that have a value, metrics in the catalog's order.
    """
    table = {
        row: {name: mean for name in CATALOG if (mean := mean_over_concepts(values_by_key(samples, row, name)))}
        for row in rows
    }
    return {row: cells for row, cells in table.items() if cells}


def paired_values(samples: Sequence[ScoredSample], row: str, against: str, metric: str) -> dict[Key, float]:
    """`row` minus `against` on equal concept, prompt and seed.

    Args:
        samples: scored samples of one group of prompts.
        row: the row of interest.
        against: the one it is compared with.
        metric: in which metric.

    Returns:
        A difference for each pair of which both have a value.
    """
    return paired(values_by_key(samples, row, metric), values_by_key(samples, against, metric))


def paired(ours: Mapping[Key, float], theirs: Mapping[Key, float]) -> dict[Key, float]:
    """The one minus the other, where there are both."""
    return {key: ours[key] - theirs[key] for key in ours.keys() & theirs.keys()}
