"""The tables of a comparison's page: numbers as they are printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline_lib.metrics import CATALOG, Metric
from pipeline_lib.metrics.comparison import (
    BASE,
    CEILING,
    CHANCE,
    EDITS,
    KINDS,
    RECONSTRUCTION,
    TRADE_OFFS,
    ComparedScores,
)
from pipeline_lib.metrics.gate import TRUTH
from pipeline_lib.metrics.orderings import PairedDifference
from pipeline_lib.metrics.over_concepts import Cells, ConceptMean
from pipeline_lib.metrics.wins import QUESTIONS
from pipeline_lib.report.compare_numbers import (
    Head,
    Matrix,
    Number,
    as_change,
    as_distance,
    as_number,
    heads_of,
    matrix,
    most_concepts,
    row_label,
    signed_interval,
)
from pipeline_lib.report.wording import counted, number, percent, signed

TITLES = {
    RECONSTRUCTION: "Reconstruction prompt",
    EDITS: "Edit prompts",
    **dict(zip(KINDS, ("Edits of the subject itself", "Edits of what is around it"), strict=True)),
}
ASKED = {metrics[0]: question for question, metrics in QUESTIONS.items() if len(metrics) == 1}
"""What a metric alone answers."""
CHIPS = {"holds": "better", "does not hold": "worse", "undecided": ""}


@dataclass(frozen=True)
class PaperLine:
    """A row of a paper's table: its name there, our row, and its numbers, one for each column."""

    method: str
    row: str
    figures: tuple[float, ...]


@dataclass(frozen=True)
class PaperColumn:
    """A column of a paper's table: its head and decimals there, and our metrics: the first that was measured counts."""

    head: str
    decimals: int
    metrics: tuple[str, ...]


def matrices(scores: ComparedScores, methods: Sequence[str]) -> list[Matrix]:
    """A table for each group of prompts, all metrics."""
    return [
        matrix(TITLES[name], most_concepts(cells), cells, methods, list(CATALOG))
        for name, cells in scores.tables.items()
        if cells
    ]


def difference_matrices(scores: ComparedScores) -> list[Matrix]:
    """For each group of prompts what every other method has more or less than the first, in pairs."""
    tables = []
    for name, cells in scores.differences.items():
        if cells:
            heads = heads_of([metric for metric in CATALOG if any(metric in row for row in cells.values())])
            rows = [
                (row, row, tuple(as_change(means.get(h.metric.name), h.metric) for h in heads))
                for row, means in cells.items()
            ]
            tables.append(Matrix(TITLES[name], most_concepts(cells), tuple(heads), tuple(rows)))
    return tables


def asked_for_matrices(scores: ComparedScores) -> list[Matrix]:
    """For each kind of edits what each row has more than the very clip that was asked for, by encoders."""
    tables = []
    for kind, cells in scores.asked_for.items():
        heads = heads_of([name for name in CATALOG if any(name in row for row in cells.values())])
        heads = [replace(head, arrow="", direction="Here neither more nor less is better") for head in heads]
        rows = [
            (row, row_label(row), tuple(as_distance(means.get(head.metric.name), head.metric) for head in heads))
            for row, means in cells.items()
        ]
        tables.append(Matrix(TITLES[kind], most_concepts(cells), tuple(heads), tuple(rows)))
    return tables


def kind_matrices(scores: ComparedScores, methods: Sequence[str]) -> list[Matrix]:
    """A table for each kind of edits: the truth, or what encoders see of the trade-off where it is not known."""
    learned = list(dict.fromkeys(name for pair in TRADE_OFFS for name in pair if name not in TRUTH))
    return [
        matrix(TITLES[kind], most_concepts(cells), cells, methods, list(TRUTH) if _has_truth(cells) else learned)
        for kind, cells in scores.kinds.items()
    ]


def slice_matrices(scores: ComparedScores, methods: Sequence[str]) -> list[Matrix]:
    """A table for each kind of motion, and for one and two subjects, truth metrics alone."""
    return [
        matrix(kind.capitalize(), counted(scores.slice_sizes[kind], "concept"), cells, methods, list(TRUTH))
        for kind, cells in scores.slices.items()
        if cells
    ]


def paper_table(
    scores: ComparedScores, lines: Sequence[PaperLine], columns: Sequence[PaperColumn]
) -> list[tuple[str, str, list[tuple[str, str, Number]]]]:
    """The paper's rows, and under them our chance, base and ceiling.

    Each is its name, our row, and for each column the paper's number, our metric and our number.
    """
    cells = scores.tables.get(EDITS, {})
    present = {name for row in cells.values() for name in row}
    chosen = [next((name for name in column.metrics if name in present), "") for column in columns]
    nothing = ["–"] * len(columns)
    table = []
    for line in lines:
        printed = [number(value, column.decimals) for value, column in zip(line.figures, columns, strict=True)]
        table.append((line.method, line.row if line.row in cells else "", printed))
    table += [
        (row_label(row), row, nothing) for row in (CHANCE, BASE, CEILING) if cells.get(row, {}).keys() & set(chosen)
    ]
    return [
        (name, row, list(zip(printed, chosen, [as_number(cells.get(row, {}).get(m), m) for m in chosen], strict=True)))
        for name, row, printed in table
    ]


def win_lines(
    scores: ComparedScores, raters: Mapping[str, Sequence[int]]
) -> list[tuple[str, list[tuple[str, str, str, str]]]]:
    """For each row that the first method is held against: per question share, interval, counts, and the raters'."""
    lines = []
    for against in dict.fromkeys(wins.against for wins in scores.wins):
        found = {wins.question: wins for wins in scores.wins if wins.against == against}
        cells = []
        for index, question in enumerate(QUESTIONS):
            people = f"{raters[against][index]} %" if against in raters else "–"
            if question not in found:
                cells.append(("–", "", "", people))
                continue
            wins, share = found[question], found[question].share
            ends = _both(share, 0.0)
            interval = f"{percent(ends[0])} to {percent(ends[1])}" if ends else ""
            absent = [ASKED[name] for name in QUESTIONS[question] if name not in wins.metrics]
            without = f", without {' and '.join(absent)}" if absent else ""
            counts = f"{wins.won} : {wins.lost}, {wins.tied} even{without}"
            cells.append((percent(share.mean) if share else "–", interval, counts, people))
        lines.append((against, cells))
    return lines


@dataclass(frozen=True)
class FindingLine:
    """One metric's word on an ordering; `pairs` are row, difference and interval."""

    statement: str
    source: str
    metric: Metric
    is_truth: bool
    verdict: str
    chip: str
    pairs: tuple[tuple[str, str, str], ...]


def finding_lines(scores: ComparedScores) -> list[FindingLine]:
    """All findings, in order; a statement stands with its first metric only."""
    lines, told = [], set[str]()
    for finding in scores.findings:
        metric, claim = CATALOG[finding.metric], finding.ordering
        pairs = tuple(
            (pair.against, signed(pair.difference.mean, metric.decimals), _told(pair, metric)) for pair in finding.pairs
        )
        first = claim.name not in told
        told.add(claim.name)
        lines.append(
            FindingLine(
                statement=claim.statement if first else "",
                source=claim.source if first else "",
                metric=metric,
                is_truth=metric.source == "truth",
                verdict=finding.verdict,
                chip=CHIPS[finding.verdict],
                pairs=pairs,
            )
        )
    return lines


@dataclass(frozen=True)
class AgreementLine:
    """How a learned metric agrees with its truth: over cells, within concepts with an interval, without one method."""

    learned: Metric
    truth: Metric
    over: str
    within: str
    interval: str
    without_one: str
    rests_on: str


def agreement_tables(scores: ComparedScores) -> list[tuple[str, list[AgreementLine]]]:
    """For each group of prompts the rank correlations of its metrics."""
    tables = []
    for name, found in scores.agreements.items():
        lines = []
        for one in found:
            within = one.within_concepts
            rests_on = f"{counted(one.num_cells, 'cell')}, {counted(one.num_concepts, 'concept')}"
            ends = _both(within, -1.0)
            lines.append(
                AgreementLine(
                    learned=CATALOG[one.learned],
                    truth=CATALOG[one.truth],
                    over=_or_dash(one.over_cells),
                    within=_or_dash(within.mean if within else None),
                    interval=f"{number(ends[0], 2)} to {number(ends[1], 2)}" if ends else "",
                    without_one=f"{_or_dash(one.without_one)} without {one.taken_out}" if one.taken_out else "–",
                    rests_on=rests_on,
                )
            )
        if lines:
            tables.append((TITLES[name], lines))
    return tables


def glossary(scores: ComparedScores) -> list[Head]:
    """All metrics of the tables."""
    present = {name for cells in scores.tables.values() for row in cells.values() for name in row}
    return heads_of([name for name in CATALOG if name in present])


def _told(pair: PairedDifference, metric: Metric) -> str:
    interval = signed_interval(pair.difference, metric)
    return f"{interval}; equal up to {number(pair.margin, metric.decimals)}" if pair.margin else interval


def _both(mean: ConceptMean | None, least: float) -> tuple[float, float] | None:
    """What both intervals of a number from `least` to 1 hold between them.

    None where all concepts have one value, or are too few.
    """
    ends = mean.surely_within if mean else None
    if ends is None or ends[0] == ends[1]:
        return None
    return max(least, ends[0]), min(1.0, ends[1])


def _has_truth(cells: Cells) -> bool:
    return any(name in row for row in cells.values() for name in TRUTH)


def _or_dash(value: float | None) -> str:
    return "–" if value is None else number(value, 2)
