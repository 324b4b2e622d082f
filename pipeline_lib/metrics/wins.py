"""Pairwise wins by the truth: what raters of a user study are asked, answered by a judge that knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pipeline_lib.metrics.aggregate import Key, ScoredSample
from pipeline_lib.metrics.gate import TRUTH
from pipeline_lib.metrics.over_concepts import ConceptMean, mean_over_concepts, paired_values
from pipeline_lib.records import Record

Question = Literal["identity", "motion", "prompt", "overall"]
QUESTIONS: Mapping[Question, tuple[str, ...]] = {
    "identity": ("identity_accuracy",),
    "motion": ("motion_fidelity",),
    "prompt": ("edit_accuracy",),
    "overall": TRUTH,
}
"""What is asked of a pair of videos, and the truth metrics whose sum answers it."""


class Wins(Record):
    """How often `row` beats `against` on equal concepts, prompts and seeds; a tie is half a win in `share`.

    `metrics` are those of the question that were measured of both: every pair has all of them, since sums of unequal
    metrics would not be the same question.
    """

    row: str
    against: str
    question: Question
    won: int
    tied: int
    lost: int
    share: ConceptMean
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
            pairs = {name: paired_values(samples, row, against, name) for name in metrics}
            measured = {name: values for name, values in pairs.items() if values}
            points = _points(list(measured.values()))
            if (share := mean_over_concepts(points)) is not None:
                won, tied, lost = (sum(value == worth for value in points.values()) for worth in (1.0, 0.5, 0.0))
                found.append(
                    Wins(
                        row=row,
                        against=against,
                        question=question,
                        won=won,
                        tied=tied,
                        lost=lost,
                        share=share,
                        metrics=tuple(measured),
                    )
                )
    return found


def _points(differences: Sequence[Mapping[Key, float]]) -> dict[Key, float]:
    """1 for each pair that is won, 0.5 for a tie, 0 for one that is lost; those without a metric are no pair."""
    first, *others = differences or [{}]
    keys = [key for key in first if all(key in more for more in others)]
    sums = {key: sum(one[key] for one in differences) for key in keys}
    return {key: 0.5 if abs(total) < 1e-9 else float(total > 0) for key, total in sums.items()}
