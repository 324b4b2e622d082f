"""What a comparison found, for readers of the repository: tables into README or RESULTS.md, the trade-off as a picture.

    python -m benchmarks.comparison FOLDER [FOLDER …] --command "mannerism compare" [--into README.md --short]
        [--title TITLE] [--plot docs/trade-off.svg] [--keep benchmarks/measured/core]

A folder is that of one comparison, or of one that was kept. Of several, each with methods of its own, the numbers are
computed anew from every sample's scores; of one they are those of `compare.json`, as its page shows them. `--keep`
writes them down as one comparison, so that cells made on one day can stand beside those of another.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from benchmarks.results import RESULTS, put_section
from pipeline_lib.compare.folder import CompareRecord
from pipeline_lib.compare.joined import joined, keep
from pipeline_lib.compare.paper import ORDERINGS, PAPER, PAPER_METRICS
from pipeline_lib.errors import InputError
from pipeline_lib.metrics.comparison import EDITS
from pipeline_lib.metrics.gate import TRUTH
from pipeline_lib.report.compare_numbers import Matrix, Number, row_label
from pipeline_lib.report.compare_tables import (
    AgreementLine,
    PaperColumn,
    PaperLine,
    agreement_tables,
    asked_for_matrices,
    difference_matrices,
    finding_lines,
    kind_matrices,
    matrices,
    paper_table,
    slice_matrices,
)
from pipeline_lib.report.compare_trade_off import together_tables, trade_off_chart
from pipeline_lib.report.self_contained import chart_text
from pipeline_lib.report.wording import duration
from pipeline_lib.storage import write_atomic

TABLE_1 = ("lora-1", "lora-8", "two_stage", "set_and_sequence")
TABLE_2 = ("textual_inversion", "lora-8", "newmove", "dreamvideo", "dreammix", "set_and_sequence")
"""Rows of the paper's tables, by our names: ablations, and the full method against others."""


_HOW_TO_READ = (
    "Means over concepts of each one's mean over its samples; in brackets the 95 % bootstrap interval over concepts, "
    "behind `t` Student's; of changes and rank correlations, what both hold between them. A statement holds, and a "
    "change is better or worse, where both are on one side (unrounded). Fewer than five concepts have no interval; of "
    "a change it is told in how many of them it is above 0. Each is tested by itself: of twenty that are none, one may "
    "seem to be some. By the truth: `identity_accuracy` is the share of frames in which the judge names the subject, "
    "`motion_fidelity` how its path goes with the clip's, `edit_accuracy` the share of what was asked for "
    "that is there. Chance is what clips of other concepts score, *Base* the untrained base, the ceiling the reference "
    "itself, or beside edits the very clip that was asked for, in what that was scored by."
)


def section(record: CompareRecord, command: str, *, short: bool) -> list[str]:
    """A section in Markdown.

    Args:
        record: what was found.
        command: that made it.
        short: the paper's tables, the truth and the orderings alone.

    Returns:
        Its lines.
    """
    labels = [method.entry.label for method in record.methods]
    seeds = f"training seed {record.seed}, sampling seeds {', '.join(map(str, record.seeds))}"
    models = ", ".join(f"{name} `{digest[:12]}`" for name, digest in record.models.items())
    threads = f"; threads of a training: {', '.join(map(str, record.threads))}" if record.threads else ""
    lines = [
        f"{record.started[:10]}, `{command}` ({_time(record)}): {record.told}; {seeds}; {models}{threads}.",
        "",
        _HOW_TO_READ,
        "",
        *(() if short else _rows(record)),
        *_paper(record),
        *(() if short else _asked_for(record)),
        *_truth(record, labels),
        *(() if short else _changes(record, labels)),
        *(() if short else _kinds(record, labels)),
        *_front(record),
        *_together(record, labels),
        *_orderings(record),
    ]
    return lines if short else [*lines, *_agreement(record), *_slices(record, labels)]


def _time(record: CompareRecord) -> str:
    parts = record.compare_id.count(" + ") + 1
    took = duration(record.seconds)
    if parts > 1:
        return f"{took} in {parts} comparisons, without the cells that they found"
    return took if record.starts == 1 else f"{took} in the last of {record.starts} calls"


def _paper(record: CompareRecord) -> Iterator[str]:
    """Tables 1 and 2 beside ours, where at least two of their rows were run; others have the paper's number alone."""
    if len({row.entry for row in PAPER} & record.scores.tables.get(EDITS, {}).keys()) < 2:
        return
    columns = [PaperColumn(*column) for column in PAPER_METRICS]
    table = paper_table(record.scores, [PaperLine(row.method, row.entry, tuple(row[2:])) for row in PAPER], columns)
    lines = {row.entry: line for row, line in zip(PAPER, table, strict=False)}
    beside = table[len(PAPER) :]
    for title, entries in (("Table 1", TABLE_1), ("Table 2", TABLE_2)):
        rows = [*(lines[entry] for entry in entries), *beside]
        heads = [
            f"{column.head} (`{cell[1] or 'not measured'}`)" for column, cell in zip(columns, rows[0][2], strict=True)
        ]
        yield from (f"**The paper's {title}, edit prompts: the paper's number · what was measured here**", "")
        yield from _table(
            ["method", *heads],
            ([method, *(f"{printed} · {_text(ours)}" for printed, _, ours in cells)] for method, _, cells in rows),
        )


def _asked_for(record: CompareRecord) -> Iterator[str]:
    """The paper's metrics against the clip that was asked for: none of them is better for being beyond it."""
    names = {name for _, _, metrics in PAPER_METRICS for name in metrics}
    for table in asked_for_matrices(record.scores):
        kept = _columns(table, names)
        yield from (f"**More than the very clip that was asked for: {table.title.lower()}, {table.told}**", "")
        yield from _matrix(table, kept)


def _truth(record: CompareRecord, labels: Sequence[str]) -> Iterator[str]:
    for table in matrices(record.scores, labels):
        kept = _columns(table, TRUTH)
        if kept:
            yield from (f"**By the truth: {table.title.lower()}, {table.told}**", "")
            yield from _matrix(table, kept)


def _rows(record: CompareRecord) -> Iterator[str]:
    told = [f"`{method.entry.label}` {method.entry.about}" for method in record.methods if method.entry.about]
    if told:
        yield from (f"Rows: {'; '.join(told)}.", "")


def _changes(record: CompareRecord, labels: Sequence[str]) -> Iterator[str]:
    """By the truth, what each row has more or less than the first one."""
    for table in difference_matrices(record.scores):
        kept = _columns(table, TRUTH)
        if kept:
            yield from (f"**More than {labels[0]}, in pairs: {table.title.lower()}, {table.told}**", "")
            yield from _matrix(table, kept)


def _kinds(record: CompareRecord, labels: Sequence[str]) -> Iterator[str]:
    for table in kind_matrices(record.scores, labels):
        yield from (f"**{table.title}: {table.told}**", "")
        yield from _matrix(table, range(len(table.heads)))


def _together(record: CompareRecord, labels: Sequence[str]) -> Iterator[str]:
    for table in together_tables(record.scores):
        yield from (f"**{table.title}: the product in each sample, {table.told}**", "")
        yield from _table(
            ["method", "at once", f"more than {labels[0]}, in pairs", ""],
            ([row, _text(mean), _text(gain), gain.mark] for row, mean, gain in table.lines),
        )


def _front(record: CompareRecord) -> Iterator[str]:
    told = record.scores.trade_off
    if told is not None:
        names = ", ".join(row_label(row) for row in told.front)
        yield from (f"Pareto front of `{told.across}` and `{told.up}`, by means: {names}.", "")


def _orderings(record: CompareRecord) -> Iterator[str]:
    lines = finding_lines(record.scores)
    if lines:
        yield from ("**What the paper's numbers state, each held against paired differences**", "")
        yield from _table(
            ["statement", "source", "metric", "here", "more (+) or less (−) than"],
            (
                [line.statement, line.source, f"`{line.metric.name}`", line.verdict, _pairs(line.pairs)]
                for line in lines
            ),
        )
        tested = {finding.ordering.name for finding in record.scores.findings}
        untested = [ordering.statement for ordering in ORDERINGS if ordering.name not in tested]
        if untested:
            yield from (f"Not tested, for want of a row: {' '.join(untested)}", "")


def _agreement(record: CompareRecord) -> Iterator[str]:
    for title, lines in agreement_tables(record.scores):
        yield from (f"**Spearman's rank correlation with the truth: {title.lower()}**", "")
        yield from _table(
            ["metric", "truth", "over cells", "within concepts", "lowest without one method", "from"],
            (
                [
                    f"`{line.learned.name}`",
                    f"`{line.truth.name}`",
                    line.over,
                    _within(line),
                    line.without_one,
                    line.rests_on,
                ]
                for line in lines
            ),
        )


def _slices(record: CompareRecord, labels: Sequence[str]) -> Iterator[str]:
    for table in slice_matrices(record.scores, labels):
        yield from (f"**{table.title}, edit prompts: {table.told}**", "")
        yield from _matrix(table, range(len(table.heads)))


def _columns(table: Matrix, names: Collection[str]) -> list[int]:
    return [index for index, head in enumerate(table.heads) if head.metric.name in names]


def _matrix(table: Matrix, kept: Sequence[int]) -> Iterator[str]:
    heads = ["method", *(f"`{table.heads[index].metric.name}`" for index in kept)]
    return _table(heads, ([label, *(_marked(cells[index]) for index in kept)] for _, label, cells in table.rows))


def _table(heads: Sequence[str], rows: Iterator[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def _text(number: Number) -> str:
    return f"{number.mean} [{number.interval.replace(' to ', ', ')}]" if number.interval else number.mean


def _marked(number: Number) -> str:
    """With what a change is; the best mean of a column, which may lead by nothing, is not marked."""
    return f"{_text(number)} {number.mark}" if number.mark in ("better", "worse") else _text(number)


def _within(line: AgreementLine) -> str:
    return f"{line.within} [{line.interval}]" if line.interval else line.within


def _pairs(pairs: Sequence[tuple[str, str, str]]) -> str:
    return "; ".join(f"{row} {amount} ({interval})" for row, amount, interval in pairs)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="of a comparison")
    parser.add_argument("--command", required=True, help="that made it")
    parser.add_argument("--into", type=Path, default=RESULTS, help="Markdown file that gets the section")
    parser.add_argument("--title", default="Methods compared: as measured")
    parser.add_argument("--plot", type=Path, help="SVG file of the trade-off")
    parser.add_argument(
        "--short",
        action="store_true",
        help="without rows, changes, what was asked for, kinds of edits, agreement and slices",
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write all of them there as one")
    arguments = parser.parse_args()
    try:
        record, samples = joined(arguments.folders)
    except InputError as error:
        sys.exit(f"error: {error}")
    if arguments.keep:
        keep(record, samples, arguments.keep)
    lines = section(record, arguments.command, short=arguments.short)
    chart = trade_off_chart(record.scores)
    if arguments.plot and chart is not None:
        write_atomic(arguments.plot, chart_text(chart, style="compare.css"))
        link = Path(os.path.relpath(arguments.plot, arguments.into.parent)).as_posix()
        lines += [f"![Keeping the subject against following the prompt]({link})", ""]
    put_section(arguments.into, arguments.title, lines)


if __name__ == "__main__":
    main()
