"""Scores of a comparison's samples as a table, a line for each sample: for other statistics, and to compare again.

Numbers are whole, so that equal ones stay equal. Reasons are left out, and encoders, which stand in the record.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pipeline_lib.errors import InputError
from pipeline_lib.metrics.aggregate import ScoredSample
from pipeline_lib.metrics.catalog import CATALOG
from pipeline_lib.metrics.comparison import as_judged
from pipeline_lib.records import Score
from pipeline_lib.storage import write_atomic

Number = TypeVar("Number", int, float)
WHICH = ("concept", "row", "kind", "prompt", "negative", "seed")
"""Columns that tell a sample from the others, as :class:`~pipeline_lib.metrics.aggregate.ScoredSample` does; the others
are metrics by their names in the catalog."""


def write_scores(samples: Sequence[ScoredSample], path: Path) -> None:
    """Writes a table in CSV: scores as they count in a comparison; a metric without any value has no column.

    Args:
        samples: in the order of the lines.
        path: of the file; what is there is replaced.
    """
    # The reason why the judge refused is not in the table, so that a reader could not leave out what it rules out.
    values = [
        {score.metric: score.value for score in as_judged(sample).scores if score.value is not None}
        for sample in samples
    ]
    metrics = [name for name in CATALOG if any(name in own for own in values)]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*WHICH, *metrics])
    for sample, own in zip(samples, values, strict=True):
        which = [getattr(sample, column) for column in WHICH]
        table.writerow([*which, *(repr(own[name]) if name in own else "" for name in metrics)])
    write_atomic(path, text.getvalue())


def read_scores(path: Path) -> list[ScoredSample]:
    """Reads such a table.

    Args:
        path: of the file.

    Returns:
        The samples in the order of the lines; a metric without a value is no score of theirs.

    Raises:
        InputError: no such file, a column that is missing or no metric's name, or something that is no number.
    """
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the scores cannot be read", got=f"{path}: {error}") from error
    table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        heads = list(table.fieldnames or ())
        metrics = heads[len(WHICH) :]
        if tuple(heads[: len(WHICH)]) != WHICH or len(set(heads)) < len(heads) or not CATALOG.keys() >= set(metrics):
            got = ", ".join(heads) or "nothing"
            raise InputError(f"{path} is no table of scores", got=got, expected=f"{', '.join(WHICH)}, then metrics")
        return [_sample(line, metrics) for line in table]
    except (KeyError, TypeError, csv.Error) as error:
        raise InputError(f"line {max(1, table.line_num)} of {path} is torn", got=str(error)) from error


def _sample(line: Mapping[str | None, str], metrics: Iterable[str]) -> ScoredSample:
    if None in line or None in line.values():
        raise TypeError("it has more fields than heads, or fewer")
    return ScoredSample(
        concept=line["concept"],
        row=line["row"],
        kind=line["kind"],
        prompt=line["prompt"],
        negative=line["negative"],
        seed=_number(line, "seed", int),
        scores=tuple(_score(name, _number(line, name, float)) for name in metrics if line[name] != ""),
    )


def _number(line: Mapping[str | None, str], head: str, kind: Callable[[str], Number]) -> Number:
    try:
        return kind(line[head])
    except ValueError as error:
        raise TypeError(f"{head} is {line[head]!r}") from error


def _score(name: str, value: float) -> Score:
    metric = CATALOG[name]
    # Of metrics whose range depends on the frames the table does not know the upper end.
    high = metric.high if math.isfinite(metric.high) else value
    if not math.isfinite(value) or not metric.low <= value <= high:
        raise TypeError(f"{name} is {value:g}")
    return Score(metric=name, value=value, direction=metric.direction, low=metric.low, high=high)
