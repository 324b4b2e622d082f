"""A batch on one HTML page: a row for each concept, in the look of a run's report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pipeline_lib.metrics import CATALOG
from pipeline_lib.report.embed import Embedded, embed
from pipeline_lib.report.self_contained import page_text
from pipeline_lib.report.several_runs import SeveralRunsPage
from pipeline_lib.report.wording import DIRECTION_ARROWS, DIRECTION_WORDS, duration, number


@dataclass(frozen=True)
class Figure:
    """A score of the personalised model.

    Attributes:
        metric: a name in the catalog.
        mean: over the samples.
        low: lower end of the 95 % interval; None without one.
        high: its upper end.
    """

    metric: str
    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class BatchLine:
    """One concept.

    Attributes:
        concept: its name.
        status: of its run.
        run_id: of its run; empty where it had none.
        seconds: that it took in this batch; 0 where that is not known.
        found: nothing had to be made.
        strip: a picture of stills, the reference first; None without one.
        figures: scores.
        links: text and address, relative to the page or absolute.
        notes: of the run.
        reason: why there is no result.
    """

    concept: str
    status: Literal["done", "failed", "stopped"]
    run_id: str = ""
    seconds: float = 0.0
    found: bool = False
    strip: Path | None = None
    figures: tuple[Figure, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class BatchPage(SeveralRunsPage):
    """What the page shows.

    Attributes:
        lines: one for each concept.
        beside_runs: it lies where its relative links lead somewhere.
    """

    lines: tuple[BatchLine, ...]
    beside_runs: bool = True

    def elsewhere(self) -> BatchPage:
        """Only links to whole addresses are left."""
        lines = (replace(line, links=tuple(link for link in line.links if "://" in link[1])) for line in self.lines)
        return replace(self, lines=tuple(lines), beside_runs=False)

    def text(self) -> str:
        """The page, with a strip of stills for each concept."""
        heads = _heads(self.lines)
        done = sum(line.status == "done" for line in self.lines)
        return page_text(
            "batch.html",
            style="batch.css",
            page=self,
            facts=(("Concepts", len(self.lines)), ("Done", done)),
            heads=heads,
            rows=[_row(line, heads) for line in self.lines],
        )


@dataclass(frozen=True)
class _Head:
    """A column of scores."""

    metric: str
    label: str
    short: str
    arrow: str
    direction: str
    meaning: str


@dataclass(frozen=True)
class _Row:
    line: BatchLine
    time: str
    strip: Embedded | None
    cells: tuple[tuple[str, str], ...]


def _heads(lines: Sequence[BatchLine]) -> list[_Head]:
    present = {figure.metric for line in lines for figure in line.figures}
    return [
        _Head(
            metric=name,
            label=metric.label,
            short=metric.short,
            arrow=DIRECTION_ARROWS[metric.direction],
            direction=DIRECTION_WORDS[metric.direction],
            meaning=metric.meaning,
        )
        for name, metric in CATALOG.items()
        if name in present
    ]


def _row(line: BatchLine, heads: Sequence[_Head]) -> _Row:
    figures = {figure.metric: figure for figure in line.figures}
    time = "found" if line.found else duration(line.seconds) if line.seconds > 0 else ""
    cells = tuple(_cell(figures.get(head.metric)) for head in heads)
    return _Row(line, time, embed(line.strip) if line.strip else None, cells)


def _cell(figure: Figure | None) -> tuple[str, str]:
    """A mean and its interval, printed; a dash and nothing where there is none."""
    if figure is None:
        return "–", ""
    digits = CATALOG[figure.metric].decimals
    if figure.low is None or figure.high is None:
        return number(figure.mean, digits), ""
    return number(figure.mean, digits), f"{number(figure.low, digits)} to {number(figure.high, digits)}"
