"""Score tables: a cell per metric and row, the difference to the base, and what is missing and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline_lib.metrics import CATALOG, Difference, Metric, ScoredSample, Summary, paired_differences, summary
from pipeline_lib.metrics.aggregate import FEWEST_UNITS, NOT_MEASURED, in_group
from pipeline_lib.report.charts import IntervalMark, interval_chart
from pipeline_lib.report.wording import DIRECTION_ARROWS, DIRECTION_WORDS, ROW_LABELS, number, signed

GROUPS = (("Reconstruction prompt", True), ("Edit prompts", False))
_ONLY_IN = {"mse": True, "mse_edit": False}


@dataclass(frozen=True)
class Cell:
    """One number of the table, a dash with a footnote, or nothing where the row has no such metric.

    Attributes:
        row: the table row's id.
        label: for people.
        mean: printed, or a dash.
        interval: the 95 % interval, printed; empty without one.
        best: the mean over prompts of the best seed; empty with one seed.
        footnote: number of the footnote with the reason; 0 without.
    """

    row: str
    label: str
    mean: str
    interval: str
    best: str
    footnote: int


@dataclass(frozen=True)
class Line:
    """One metric across the rows.

    Attributes:
        metric: what it is.
        arrow: which way is better, as a sign.
        direction: the same in words.
        cells: one per row.
        change: personalised minus base.
        chart: means and intervals on one axis; None with fewer than two numbers.
    """

    metric: Metric
    arrow: str
    direction: str
    cells: tuple[Cell, ...]
    change: Change
    chart: Markup | None


@dataclass(frozen=True)
class Change:
    """A difference in words.

    Attributes:
        state: `better`, `worse`, `noise`, `few` or `none`; names the style too.
        text: what the chip says; empty where no way is better.
        amount: the signed difference; empty without one.
    """

    state: str
    text: str
    amount: str


@dataclass(frozen=True)
class Table:
    """One group of prompts.

    Attributes:
        title: of the group.
        rows: ids and labels of the columns.
        lines: metrics with at least one number.
        footnotes: reasons, numbered from 1.
        unmeasured: label and reason of metrics without any number.
        num_samples: how many personalised (else all) samples stand behind it.
    """

    title: str
    rows: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]
    footnotes: tuple[str, ...]
    unmeasured: tuple[tuple[str, str], ...]
    num_samples: int


def score_tables(samples: Sequence[ScoredSample]) -> list[Table]:
    """A table for reconstruction and one for edits; the ceiling stands in both.

    Args:
        samples: scored samples of all rows.

    Returns:
        Reconstruction first; a group without samples has no table.

    Raises:
        InputError: a metric's scores come from different encoders.
    """
    tables = []
    measured_in = {rebuilt: _measured(in_group(samples, rebuilt)) for _, rebuilt in GROUPS}
    for title, rebuilt in GROUPS:
        members = in_group(samples, rebuilt)
        if any(sample.row not in ("ceiling", "chance") for sample in members):
            elsewhere = {name for name, group in _ONLY_IN.items() if group != rebuilt}
            tables.append(_table(title, members, measured_in[not rebuilt] | elsewhere))
    return tables


def change_in_words(difference: Difference | None, decimals: int) -> Change:
    """What a difference between personalised and base means."""
    if difference is None:
        return Change("none", "", "")
    amount = signed(difference.mean, decimals)
    if difference.better is not None:
        return Change(*(("better", "better") if difference.better else ("worse", "worse")), amount)
    if CATALOG[difference.metric].direction == "closer":
        return Change("none", "", amount)
    if difference.num_units < FEWEST_UNITS:
        return Change("few", f"too few to tell ({difference.num_pairs})", amount)
    return Change("noise", "inside the noise", amount)


def _table(title: str, samples: Sequence[ScoredSample], elsewhere: set[str]) -> Table:
    cells = summary(samples)
    rows = _ordered(cells)
    differences = paired_differences(samples, "personalised", "base")
    footnotes: list[str] = []
    lines, unmeasured = [], []
    for name, metric in CATALOG.items():
        found = [(row, cells[row][name]) for row in rows if name in cells[row]]
        if any(cell.mean is not None for _, cell in found):
            change = change_in_words(differences.get(name), metric.decimals)
            lines.append(_line(metric, found, change, footnotes))
        elif found and name not in elsewhere:
            unmeasured.append((metric.label, found[0][1].reason))
    counted = [sample for sample in samples if sample.row == "personalised"] or samples
    titles = tuple((row, ROW_LABELS.get(row, row)) for row in rows)
    return Table(title, titles, tuple(lines), tuple(footnotes), tuple(unmeasured), len(counted))


def _line(metric: Metric, found: Sequence[tuple[str, Summary]], change: Change, footnotes: list[str]) -> Line:
    marks = [
        IntervalMark(row, ROW_LABELS.get(row, row), cell.mean, cell.low, cell.high)
        for row, cell in found
        if cell.mean is not None
    ]
    return Line(
        metric=metric,
        arrow=DIRECTION_ARROWS[metric.direction],
        direction=DIRECTION_WORDS[metric.direction],
        cells=tuple(_cell(metric, row, cell, footnotes) for row, cell in found),
        change=change,
        chart=interval_chart(marks, metric.decimals) if len(marks) > 1 else None,
    )


def _cell(metric: Metric, row: str, cell: Summary, footnotes: list[str]) -> Cell:
    if cell.reason == NOT_MEASURED:
        return Cell(row, ROW_LABELS.get(row, row), "", "", "", 0)
    note = cell.reason
    if note and cell.num_missing and cell.mean is not None:
        note = f"{cell.num_missing} of {cell.num_missing + cell.num_samples} samples left out: {note}"
    if note and note not in footnotes:
        footnotes.append(note)
    label, footnote = ROW_LABELS.get(row, row), footnotes.index(note) + 1 if note else 0
    if cell.mean is None:
        return Cell(row, label, "–", "", "", footnote)
    digits = metric.decimals
    interval = ""
    if cell.low is not None and cell.high is not None:
        interval = f"{number(cell.low, digits)} to {number(cell.high, digits)}"
    best = ""
    if cell.best_of_seeds is not None and abs(cell.best_of_seeds - cell.mean) > 10**-digits / 2:
        best = number(cell.best_of_seeds, digits)
    return Cell(row, label, number(cell.mean, digits), interval, best, footnote)


def _ordered(rows: Mapping[str, object]) -> list[str]:
    known = list(ROW_LABELS)
    return sorted(rows, key=lambda row: (known.index(row) if row in known else known.index("ceiling") - 0.5, row))


def _measured(samples: Sequence[ScoredSample]) -> set[str]:
    return {score.metric for sample in samples for score in sample.scores if score.value is not None}
