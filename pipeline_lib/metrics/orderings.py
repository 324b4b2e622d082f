"""Orderings that somebody states, e.g. "LoRA-1 keeps identity less well than LoRA-8", each held against scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pipeline_lib.metrics.aggregate import ScoredSample, values_by_key
from pipeline_lib.metrics.over_concepts import ConceptMean, mean_over_concepts, paired_values
from pipeline_lib.records import Record

Verdict = Literal["holds", "does not hold", "undecided"]
EQUAL_WITHIN = 0.1
"""Two rows are equal in a metric where the interval of their difference lies within this share of the second's mean."""


class Ordering(Record):
    """One statement: `row` has a value above, below or equal to that of each of `against`.

    `metrics` are those in which it is tested, each by itself: the source's own, or our stand-in for it, then the truth.
    """

    name: str
    statement: str
    source: str
    row: str
    relation: Literal["above", "below", "equal"]
    against: tuple[str, ...]
    metrics: tuple[str, ...]


class PairedDifference(Record):
    """`row` minus `against`, over equal concepts, prompts and seeds.

    `margin`: where equality is claimed, how large a difference still counts as none.
    """

    against: str
    difference: ConceptMean
    verdict: Verdict
    margin: float = 0.0


class Finding(Record):
    """What one metric says of an ordering.

    The verdict is `holds` where every pair does, `does not hold` where some pair is the other way round beyond both of
    its intervals, else `undecided`; also where a row that it speaks of is missing.
    """

    ordering: Ordering
    metric: str
    verdict: Verdict
    pairs: tuple[PairedDifference, ...]


def findings(samples: Sequence[ScoredSample], orderings: Sequence[Ordering]) -> list[Finding]:
    """Tests orderings one by one, in each of their metrics.

    Args:
        samples: scored samples of one group of prompts.
        orderings: what is claimed.

    Returns:
        A finding for each ordering and metric for which at least one pair was measured.
    """
    found = []
    for ordering in orderings:
        for metric in ordering.metrics:
            pairs = [pair for name in ordering.against if (pair := _pair(samples, ordering, metric, name))]
            if pairs:
                verdict = _over_pairs([pair.verdict for pair in pairs], complete=len(pairs) == len(ordering.against))
                found.append(Finding(ordering=ordering, metric=metric, verdict=verdict, pairs=tuple(pairs)))
    return found


def _pair(samples: Sequence[ScoredSample], ordering: Ordering, metric: str, against: str) -> PairedDifference | None:
    difference = mean_over_concepts(paired_values(samples, ordering.row, against, metric))
    if difference is None:
        return None
    theirs = mean_over_concepts(values_by_key(samples, against, metric))
    margin = EQUAL_WITHIN * abs(theirs.mean) if theirs and ordering.relation == "equal" else 0.0
    verdict = _verdict(ordering, difference, margin)
    return PairedDifference(against=against, difference=difference, verdict=verdict, margin=margin)


def _verdict(ordering: Ordering, difference: ConceptMean, margin: float) -> Verdict:
    if difference.surely_within is None:
        return "undecided"
    low, high = difference.surely_within
    if ordering.relation == "equal":
        if -margin <= low and high <= margin:
            return "holds"
        return "does not hold" if low > margin or high < -margin else "undecided"
    if ordering.relation == "below":
        low, high = -high, -low
    if low > 0:
        return "holds"
    return "does not hold" if high < 0 else "undecided"


def _over_pairs(verdicts: Sequence[Verdict], *, complete: bool) -> Verdict:
    if "does not hold" in verdicts:
        return "does not hold"
    return "holds" if complete and set(verdicts) == {"holds"} else "undecided"
