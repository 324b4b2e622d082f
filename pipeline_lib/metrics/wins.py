"""Pairwise wins by the truth: what raters of a user study are asked, answered by a judge that knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pipeline_lib.metrics.aggregate import Key, ScoredSample, values_by_key
from pipeline_lib.metrics.gate import TRUTH
from pipeline_lib.metrics.over_concepts import ConceptMean, mean_over_concepts
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
    """How often `row` beats `against` on equal concepts, prompts and seeds; a tie is half a win in `share`."""

    row: str
    against: str
    question: Question
    won: int
    tied: int
    lost: int
    share: ConceptMean


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
            points = _points(samples, row, against, metrics)
            share = mean_over_concepts(points)
            if share is not None:
                counts = [sum(value == worth for value in points.values()) for worth in (1.0, 0.5, 0.0)]
                won, tied, lost = counts
                found.append(
                    Wins(row=row, against=against, question=question, won=won, tied=tied, lost=lost, share=share)
                )
    return found


def _points(samples: Sequence[ScoredSample], row: str, against: str, metrics: Sequence[str]) -> dict[Key, float]:
    """1 for each pair that is won, 0.5 for a tie, 0 for one that is lost."""
    sums: dict[Key, float] = {}
    for metric in metrics:
        ours, theirs = values_by_key(samples, row, metric), values_by_key(samples, against, metric)
        for key in ours.keys() & theirs.keys():
            sums[key] = sums.get(key, 0.0) + ours[key] - theirs[key]
    return {key: 0.5 if abs(total) < 1e-9 else float(total > 0) for key, total in sums.items()}
