"""Numbers of a comparison as they are printed, and tables of them: means, differences, their intervals and marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline_lib.metrics import CATALOG, Metric
from pipeline_lib.metrics.comparison import BASE, BESIDE, CEILING, CHANCE
from pipeline_lib.metrics.over_concepts import Cells, ConceptMean
from pipeline_lib.report.wording import DIRECTION_ARROWS, DIRECTION_WORDS, ROW_LABELS, counted, number, signed


@dataclass(frozen=True)
class Head:
    """A column of scores."""

    metric: Metric
    arrow: str
    direction: str


@dataclass(frozen=True)
class Number:
    """A mean as printed, its interval, and its mark.

    Marks are `best` of the methods; of a difference `better` or `worse`, and of one to what was asked for `apart`.
    The interval of a difference on too few concepts for one says in how many of them it is above 0.
    """

    mean: str
    interval: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Matrix:
    """A table of methods by metrics; `rows` are id, label and cells, and `told` how many concepts stand behind it."""

    title: str
    told: str
    heads: tuple[Head, ...]
    rows: tuple[tuple[str, str, tuple[Number, ...]], ...]


def matrix(title: str, told: str, cells: Cells, methods: Sequence[str], metrics: Sequence[str]) -> Matrix:
    """A table of rows that are there: chance, base, methods, ceiling; metrics that nobody has are left out."""
    heads = heads_of([name for name in metrics if any(name in row for row in cells.values())])
    rows = [row for row in (CHANCE, BASE, *methods, CEILING) if row in cells]
    best = {head.metric.name: _best(head.metric, cells, methods) for head in heads}
    lines = []
    for row in rows:
        numbers = [
            as_number(cells[row].get(name), name, best=row in best[name])
            for name in (head.metric.name for head in heads)
        ]
        lines.append((row, row_label(row), tuple(numbers)))
    return Matrix(title, told, tuple(heads), tuple(lines))


def heads_of(names: Sequence[str]) -> list[Head]:
    """Columns for metrics of the catalog."""
    metrics = [CATALOG[name] for name in names]
    return [Head(one, DIRECTION_ARROWS[one.direction], DIRECTION_WORDS[one.direction]) for one in metrics]


def _best(metric: Metric, cells: Cells, methods: Sequence[str]) -> set[str]:
    """Rows with the best mean, where not all have the same."""
    means = {row: cells[row][metric.name].mean for row in methods if metric.name in cells.get(row, {})}
    if metric.direction == "closer" or len(set(means.values())) < 2:
        return set()
    wanted = max(means.values()) if metric.direction == "higher" else min(means.values())
    return {row for row, mean in means.items() if mean == wanted}


def as_number(mean: ConceptMean | None, metric: str, *, best: bool = False) -> Number:
    """A mean with its bootstrap interval; a dash for none."""
    if mean is None:
        return Number("–")
    digits = CATALOG[metric].decimals
    ends = ends_of(mean)
    interval = f"{number(ends[0], digits)} to {number(ends[1], digits)}" if ends else ""
    return Number(number(mean.mean, digits), interval, "best" if best else "")


def as_change(difference: ConceptMean | None, metric: Metric) -> Number:
    """A difference with what both of its intervals hold between them, marked where that is not 0.

    Of too few concepts for an interval: in how many of them it is above 0.
    """
    if difference is None:
        return Number("–")
    text, ends, mark = signed(difference.mean, metric.decimals), difference.surely_within, ""
    if ends is None:
        known = difference.num_above is not None
        return Number(text, f"{difference.num_above} of {difference.num_concepts} above 0" if known else "")
    if metric.direction != "closer" and not ends[0] <= 0 <= ends[1]:
        mark = "better" if (ends[0] > 0) == (metric.direction == "higher") else "worse"
    return Number(text, f"{signed(ends[0], metric.decimals)} to {signed(ends[1], metric.decimals)}", mark)


def as_distance(difference: ConceptMean | None, metric: Metric) -> Number:
    """A difference to what was asked for, where neither side is better: `apart` where 0 is in neither interval."""
    ends = difference.surely_within if difference else None
    apart = ends is not None and not ends[0] <= 0 <= ends[1]
    return replace(as_change(difference, metric), mark="apart" if apart else "")


def ends_of(mean: ConceptMean) -> tuple[float, float] | None:
    """The bootstrap interval; None where too few concepts stand behind the mean."""
    return None if mean.low is None or mean.high is None else (mean.low, mean.high)


def signed_interval(difference: ConceptMean, metric: Metric) -> str:
    """Both intervals of a difference, Student's behind `t`."""
    ends = ends_of(difference)
    if ends is None:
        return f"{counted(difference.num_concepts, 'concept')}: too few for an interval"
    told = f"{signed(ends[0], metric.decimals)} to {signed(ends[1], metric.decimals)}"
    low, high = difference.student_low, difference.student_high
    if low is None or high is None:
        return told
    return f"{told}; t {signed(low, metric.decimals)} to {signed(high, metric.decimals)}"


def most_concepts(cells: Cells) -> str:
    """How many concepts stand behind the mean that has most."""
    return counted(max(mean.num_concepts for row in cells.values() for mean in row.values()), "concept")


def row_label(row: str) -> str:
    """An entry by its own name, which may be `lora`; the rows beside the entries as other reports call them."""
    return ROW_LABELS[row] if row in BESIDE else row
