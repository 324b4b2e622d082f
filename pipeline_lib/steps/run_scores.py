"""A run's scores as a script wants them: row to metric to number, kinds of prompts apart."""

from __future__ import annotations

import json

from pydantic import Field

from pipeline_lib.records import ArtifactRef, Record
from pipeline_lib.steps.layout import SUMMARY_FILE
from pipeline_lib.storage import ArtifactStore


class RunScores(Record):
    """Scores by row (`base`, `personalised`, `ceiling`, and where the truth is known `chance`) and metric.

    The ceiling is the reference itself after the autoencoder: the mean over its windows; of edits, where the truth is
    known, the clips that the prompts ask for. Chance is what clips of other concepts score.

    Attributes:
        scores: means over all samples.
        scores_reconstruction: means over samples of reconstruction prompts.
        scores_edits: means over samples of all other prompts; where the ceiling is the reference, without what a prompt
            enters.
        scores_best: the best over the seeds of a reconstruction prompt, mean over such prompts.
    """

    scores: dict[str, dict[str, float]] = Field(default_factory=dict)
    scores_reconstruction: dict[str, dict[str, float]] = Field(default_factory=dict)
    scores_edits: dict[str, dict[str, float]] = Field(default_factory=dict)
    scores_best: dict[str, dict[str, float]] = Field(default_factory=dict)


def run_scores(store: ArtifactStore, ref: ArtifactRef) -> RunScores:
    """The numbers of a run's summary, where there are any; a row without a number is left out."""
    tables = json.loads((store.folder(ref) / SUMMARY_FILE).read_text(encoding="utf-8"))

    def numbers(table: str, number: str = "mean") -> dict[str, dict[str, float]]:
        rows = {
            row: {name: cell[number] for name, cell in cells.items() if cell[number] is not None}
            for row, cells in tables[table].items()
        }
        return {row: cells for row, cells in rows.items() if cells}

    return RunScores(
        scores=numbers("rows"),
        scores_reconstruction=numbers("reconstruction"),
        scores_edits=numbers("edits"),
        scores_best=numbers("reconstruction", "best_of_seeds"),
    )
