"""Pairwise wins by the truth: what raters of a user study are asked, answered by a judge that knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Literal

from pipeline_lib.metrics.aggregate import Key, ScoredSample, values_by_key
from pipeline_lib.metrics.gate import TRUTH
from pipeline_lib.metrics.over_concepts import EVEN, ConceptMean, mean_over_concepts, paired, paired_values
from pipeline_lib.records import Record

Question = Literal["identity", "motion", "prompt", "overall"]
QUESTIONS: Mapping[Question, tuple[str, ...]] = {
    "identity": ("identity_accuracy",),
    "motion": ("motion_fidelity",),
    "prompt": ("edit_accuracy",),
    "overall": TRUTH,
}
"""What is asked of a pair of videos, and the truth metrics whose product answers it: a copy of the clip, which follows
no prompt, wins nothing overall."""


class Wins(Record):
    """How often `row` beats `against` on equal concepts, prompts and seeds.

    `share` is of the pairs that are decided, as of raters' answers, mean over concepts; None where all are even.
    `metrics` are those of the question that were measured of both: every pair has all of them, since products of
    unequal metrics would not be the same question.
    """

    row: str
    against: str
    question: Question
    won: int
    tied: int
    lost: int
    share: ConceptMean | None
    metrics: tuple[str, ...] = ()


def pairwise_wins(samples: Sequence[ScoredSample], row: str, others: Sequence[str]) -> list[Wins]:
    """Wins of one row against each of the others.

    Args:
        samples: scored samples of edit prompts.
        row: the row of interest.
        others: that it is compared with.

    Returns:
        One for each other row and question that has a pair.
    """
    found = []
    for against in others:
        for question, metrics in QUESTIONS.items():
            measured = [name for name in metrics if paired_values(samples, row, against, name)]
            points = paired(products(samples, row, measured), products(samples, against, measured))
            if points:
                decided = {key: float(value > 0) for key, value in points.items() if abs(value) > EVEN}
                won = sum(value == 1.0 for value in decided.values())
                found.append(
                    Wins(
                        row=row,
                        against=against,
                        question=question,
                        won=won,
                        tied=len(points) - len(decided),
                        lost=len(decided) - won,
                        share=mean_over_concepts(decided),
                        metrics=tuple(measured),
                    )
                )
    return found


def products(samples: Sequence[ScoredSample], row: str, metrics: Sequence[str]) -> dict[Key, float]:
    """Metrics of a row multiplied in each sample.

    Args:
        samples: scored samples.
        row: whose.
        metrics: that end at one; below 0, as of motion against the clip's, they count as 0.

    Returns:
        The product of each sample that has all metrics; of one metric its own values.
    """
    if len(metrics) == 1:
        return values_by_key(samples, row, metrics[0])
    first, *others = [values_by_key(samples, row, metric) for metric in metrics] or [{}]
    keys = [key for key in first if all(key in more for more in others)]
    return {key: prod(max(0.0, values[key]) for values in (first, *others)) for key in keys}
