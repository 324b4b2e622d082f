"""How well a learned metric orders what it scores as the truth does: Spearman's rank correlation over cells.

A cell is one method on one concept: the mean over its samples that both metrics scored. Two numbers, because they
answer two questions: over all cells, whether the metric tells good results from bad ones; within each concept, whether
it ranks methods as the truth does. A metric of which less is better has its sign turned, so that 1 is agreement always.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pipeline_lib.metrics.aggregate import ScoredSample, values_by_key
from pipeline_lib.metrics.catalog import CATALOG
from pipeline_lib.metrics.over_concepts import ConceptMean, mean_over_concepts
from pipeline_lib.records import Record

COUNTERPARTS = (
    ("subject_identity", "identity_accuracy"),
    ("dino_i", "identity_accuracy"),
    ("clip_i", "identity_accuracy"),
    ("mse_subject", "identity_accuracy"),
    ("clip_t_aggregated", "edit_accuracy"),
    ("clip_t_mean", "edit_accuracy"),
    ("dynamic_degree_gap", "motion_fidelity"),
    ("mse", "motion_fidelity"),
    ("mse_edit", "motion_fidelity"),
)
"""Learned (or pixel) metrics, each with the truth that it stands in for where no truth is known."""
FEWEST_CELLS = 3

_Which = tuple[str, str]
"""(concept, row)"""
_Pair = tuple[float, float]
"""Means of the learned metric and of the truth."""


class Agreement(Record):
    """Rank correlation of a learned metric with its truth; 1: the same order, 0: none, -1: the reverse.

    `within_concepts` is the mean over concepts of the correlation over methods; `without_one` is the lowest such mean
    that is left when any one method is taken out, and `taken_out` that method: where much goes with it, the metric
    tells that one from the rest, and hardly the rest from each other. Each is None where there are too few cells, or
    one side is all equal; `num_concepts` are those of the mean.
    """

    learned: str
    truth: str
    over_cells: float | None
    within_concepts: ConceptMean | None
    without_one: float | None = None
    taken_out: str = ""
    num_cells: int
    num_concepts: int


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation, equal values sharing their mean rank.

    Args:
        first: values.
        second: as many.

    Returns:
        A value in [-1, 1]; None with fewer than `FEWEST_CELLS` values, or where one side is constant.
    """
    if len(first) < FEWEST_CELLS:
        return None
    ranks = [_ranks(np.asarray(values, np.float64)) for values in (first, second)]
    centred = [values - values.mean() for values in ranks]
    size = math.sqrt(float((centred[0] ** 2).sum()) * float((centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum()) / size if size else None


def agreements(samples: Sequence[ScoredSample], rows: Sequence[str]) -> list[Agreement]:
    """All learned metrics against their truth.

    Args:
        samples: scored samples of one group of prompts.
        rows: methods; a base that learned nothing is best left out: whatever tells it from the rest agrees.

    Returns:
        One for each pair of metrics that has a cell.
    """
    found = []
    for learned, truth in COUNTERPARTS:
        sign = -1.0 if CATALOG[learned].direction == "lower" else 1.0
        cells = _cells(samples, rows, learned, truth)
        if cells:
            signed = {cell: (sign * pair[0], pair[1]) for cell, pair in cells.items()}
            found.append(_agreement(learned, truth, signed))
    return found


def _cells(samples: Sequence[ScoredSample], rows: Sequence[str], learned: str, truth: str) -> dict[_Which, _Pair]:
    pairs: dict[_Which, list[_Pair]] = defaultdict(list)
    for row in rows:
        first, second = values_by_key(samples, row, learned), values_by_key(samples, row, truth)
        for key in sorted(first.keys() & second.keys()):
            pairs[key[0], row].append((first[key], second[key]))
    return {cell: _means(members) for cell, members in pairs.items()}


def _means(members: Sequence[_Pair]) -> _Pair:
    return tuple(math.fsum(side) / len(members) for side in zip(*members, strict=True))  # type: ignore[return-value]


def _agreement(learned: str, truth: str, cells: Mapping[_Which, _Pair]) -> Agreement:
    within = _within(cells)
    lowest, taken_out = min(_without_each(cells), default=(None, ""))
    return Agreement(
        learned=learned,
        truth=truth,
        over_cells=_correlation([pair for _, pair in sorted(cells.items())]),
        within_concepts=mean_over_concepts({(concept, "", 0): value for concept, value in within.items()}),
        without_one=lowest,
        taken_out=taken_out,
        num_cells=len(cells),
        num_concepts=len(within),
    )


def _within(cells: Mapping[_Which, _Pair]) -> dict[str, float]:
    """Each concept's correlation over its methods, where it has one."""
    concepts: dict[str, list[_Pair]] = defaultdict(list)
    for (concept, _), pair in sorted(cells.items()):
        concepts[concept].append(pair)
    each = {concept: _correlation(members) for concept, members in concepts.items()}
    return {concept: value for concept, value in each.items() if value is not None}


def _without_each(cells: Mapping[_Which, _Pair]) -> Iterator[tuple[float, str]]:
    """The mean within concepts without a method, and the method, for each that leaves one."""
    for out in dict.fromkeys(row for _, row in cells):
        left = _within({which: pair for which, pair in cells.items() if which[1] != out}).values()
        if left:
            yield math.fsum(left) / len(left), out


def _correlation(pairs: Sequence[_Pair]) -> float | None:
    return spearman([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def _ranks(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[places]
