"""A comparison on one HTML page: tables with intervals, a trade-off, orderings, samples side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline_lib.metrics.comparison import BESIDE, ComparedScores
from pipeline_lib.report.compare_tables import (
    PaperColumn,
    PaperLine,
    agreement_tables,
    asked_for_matrices,
    difference_matrices,
    finding_lines,
    glossary,
    kind_matrices,
    matrices,
    paper_table,
    slice_matrices,
    win_lines,
)
from pipeline_lib.report.compare_trade_off import together_tables, trade_off_chart
from pipeline_lib.report.embed import data_uri
from pipeline_lib.report.self_contained import page_text
from pipeline_lib.report.several_runs import SeveralRunsPage
from pipeline_lib.report.wording import duration


@dataclass(frozen=True, kw_only=True)
class MethodLine:
    """One of the things compared.

    Attributes:
        label: its row in the tables.
        about: in a few words.
        settings: method, preset and settings that make it, as text.
        seconds: mean time of its training; 0 where that is not known.
        done: concepts that it was run on.
    """

    label: str
    about: str
    settings: str
    seconds: float
    done: int


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Samples of one concept: a row for each method, a column for each prompt.

    Attributes:
        concept: its name.
        about: what is known of it.
        reference: WebP of a few frames of what was learned from.
        prompts: heads of the columns.
        rows: label and a WebP for each column; empty where there is no such sample.
    """

    concept: str
    about: str
    reference: bytes
    prompts: tuple[str, ...]
    rows: tuple[tuple[str, tuple[bytes, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class CellLine:
    """One method on one concept: a run."""

    method: str
    concept: str
    status: str
    run_id: str
    report: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ComparePage(SeveralRunsPage):
    """What the page shows.

    Attributes:
        facts: heads and values, e.g. preset and seeds.
        scores: all numbers.
        methods: in the order of the tables.
        paper: rows of the paper's tables.
        columns: heads of the paper's tables.
        raters: a row's share of raters for the first method, by question, in per cent.
        grids: samples.
        cells: all runs.
        notes: worth knowing.
        provenance: what the numbers rest on.
        blind: address of the page for people, relative to this one; empty: there is none.
        every_score: address of the table of all samples, likewise.
    """

    facts: tuple[tuple[str, str], ...]
    scores: ComparedScores
    methods: tuple[MethodLine, ...]
    paper: tuple[PaperLine, ...] = ()
    columns: tuple[PaperColumn, ...] = ()
    raters: tuple[tuple[str, tuple[int, ...]], ...] = ()
    grids: tuple[Grid, ...] = ()
    cells: tuple[CellLine, ...] = ()
    notes: tuple[str, ...] = ()
    provenance: tuple[tuple[str, str], ...] = ()
    blind: str = ""
    every_score: str = ""

    def elsewhere(self) -> ComparePage:
        """Neither links to runs are left nor those to the blind pairs and the table of all samples."""
        alone = tuple(replace(cell, report="") for cell in self.cells)
        return replace(self, cells=alone, blind="", every_score="")

    def text(self) -> str:
        """The page, with all tables and charts."""
        scores, labels = self.scores, [method.label for method in self.methods]
        return page_text(
            "compare.html",
            style="compare.css",
            page=self,
            facts=self.facts,
            times=[duration(method.seconds) if method.seconds > 0 else "–" for method in self.methods],
            matrices=matrices(scores, labels),
            differences=difference_matrices(scores),
            asked_for=asked_for_matrices(scores),
            kinds=kind_matrices(scores, labels),
            slices=slice_matrices(scores, labels),
            chart=trade_off_chart(scores),
            trade_off=scores.trade_off,
            together=together_tables(scores),
            paper=paper_table(scores, self.paper, self.columns),
            wins=win_lines(scores, dict(self.raters)),
            findings=finding_lines(scores),
            agreements=agreement_tables(scores),
            glossary=glossary(scores),
            grids=[_pictures(grid) for grid in self.grids],
            beside=BESIDE,
        )


def _pictures(grid: Grid) -> tuple[Grid, str, Sequence[tuple[str, list[str]]]]:
    """A grid with its pictures as URIs."""
    rows = [(label, [_uri(picture) for picture in pictures]) for label, pictures in grid.rows]
    return grid, _uri(grid.reference), rows


def _uri(picture: bytes) -> str:
    return data_uri(picture, "image/webp") if picture else ""
