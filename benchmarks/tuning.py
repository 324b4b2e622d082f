"""Which rate each method learns best at, from comparisons on the tuning gizmos that differ in the rate alone.

    python -m benchmarks.tuning COMPARE.json COMPARE.json … --command "mannerism compare --gizmos tuning …" [--json]

Every method gets the same tries on the same gizmos; one whose best is at the edge may get a further one. The best has
the highest harmonic mean of the truths on edit prompts: identity, motion and edits. Their plain mean was the goal at
first; but a copy of the clip under every prompt, which follows none, scores two thirds by it, and such tries came. It
is shown beside.
Nothing is trained here: the numbers are those of each `compare.json`. The table goes into benchmarks/RESULTS.md;
presets take what it says by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, harmonic_mean
from typing import Any, NamedTuple

from benchmarks.results import RESULTS, put_section
from pipeline_lib.compare.folder import CompareRecord, Method
from pipeline_lib.compare.joined import read_record
from pipeline_lib.metrics.comparison import EDITS
from pipeline_lib.metrics.gate import TRUTH
from pipeline_lib.report.wording import duration

RATE = "learning_rate"
TITLE = "Rates of the compared methods, tuned"


class Try(NamedTuple):
    """One method at one rate.

    Attributes:
        rate: that it learned at.
        truths: means over the edit prompts of all gizmos, by metric.
        seconds: that its trainings took.
    """

    rate: float
    truths: Mapping[str, float]
    seconds: float

    @property
    def goal(self) -> float:
        """What is tuned for; 0 where one of the truths is at or below 0, as motion without any agreement may be."""
        return harmonic_mean([max(0.0, value) for value in self.truths.values()])

    @property
    def mean(self) -> float:
        """The plain mean, which decides between equal goals."""
        return fmean(self.truths.values())


def tries(records: Sequence[CompareRecord]) -> dict[str, list[Try]]:
    """What each method did at each rate.

    Args:
        records: comparisons on the same concepts with the same seeds, whose methods differ in their rates alone.

    Returns:
        Tries by label, each from the lowest rate to the highest.

    Raises:
        ValueError: the records differ in more than rates, a rate comes twice, or a cell or a truth is missing.
    """
    settled: dict[str, str] = {}
    for record in records:
        for name, facts in _what(record).items():
            if settled.setdefault(name, facts) != facts:
                raise ValueError(f"{name or 'they'} differ in more than the learning rates: no equal budget")
    found: dict[str, list[Try]] = {}
    for record in records:
        if record.missing:
            raise ValueError(f"{record.compare_id}: {record.told}")
        for method in record.methods:
            label = method.entry.label
            means = record.scores.tables[EDITS][label]
            if not set(TRUTH) <= means.keys():
                raise ValueError(f"{record.compare_id}: {label} was not read against the truth")
            seconds = sum(cell.trained_seconds for cell in record.cells if cell.entry == label)
            truths = {name: means[name].mean for name in TRUTH}
            found.setdefault(label, []).append(Try(rate_of(method), truths, seconds))
    for label, members in found.items():
        if len({one.rate for one in members}) < len(members):
            raise ValueError(f"{label} has one of its rates twice: no equal budget")
    return {label: sorted(members) for label, members in found.items()}


def rate_of(method: Method) -> float:
    """The learning rate: of a word where only a word is learned, else of the adapter."""
    return float(_optimizer(method.settings)[RATE])


def best(members: Sequence[Try]) -> Try:
    """The try to keep; of equal goals that of the higher plain mean, then that of the lower rate."""
    return max(members, key=lambda one: (one.goal, one.mean, -one.rate))


def section(found: Mapping[str, Sequence[Try]], record: CompareRecord, command: str) -> list[str]:
    """A section in Markdown.

    Args:
        found: from :func:`tries`.
        record: one of the comparisons.
        command: that made them.

    Returns:
        Its lines.
    """
    counts = {len(members) for members in found.values()}
    budget = f"{' or '.join(map(str, sorted(counts)))} rates for each method"
    spent = duration(sum(one.seconds for members in found.values() for one in members))
    return [
        f"{record.started[:10]}, `{command}`: {budget}, on {', '.join(record.concepts)}, training seed "
        f"{record.seed}, sampling seeds {', '.join(map(str, record.seeds))}; {spent} of training in all. Means over "
        "edit prompts; the goal is the harmonic mean of the three. Their plain mean, the goal at first, is "
        "high where every prompt gets the clip again; it decides where no goal is above 0. A rate at the edge of those "
        "that were tried may not be the best there is.",
        "",
        "| method | rate | identity | motion | edits | plain mean | goal | kept |",
        "|---|---|---|---|---|---|---|---|",
        *_rows(found),
    ]


def _rows(found: Mapping[str, Sequence[Try]]) -> Iterator[str]:
    for label, members in found.items():
        kept = best(members)
        for number, one in enumerate(members):
            numbers = " | ".join(f"{one.truths[name]:.2f}" for name in TRUTH)
            edge = len(members) > 1 and number in (0, len(members) - 1)
            mark = ("yes, at the edge" if edge else "yes") if one is kept else ""
            goals = f"{one.mean:.3f} | {one.goal:.3f}"
            yield f"| {label if number == 0 else ''} | {one.rate:g} | {numbers} | {goals} | {mark} |"


def _told(one: Try) -> dict[str, Any]:
    return {**one._asdict(), "mean": one.mean, "goal": one.goal}


def _optimizer(settings: Mapping[str, object]) -> dict[str, Any]:
    optimizer: Any = settings.get("word_optimizer") or settings["optimizer"]
    return dict(optimizer)


def _what(record: CompareRecord) -> dict[str, str]:
    """All that decides a record's numbers, but for the rates: of each method, and under "" of all."""
    facts = [list(record.concepts), record.seeds, record.seed, record.base, record.models]
    found = {"": json.dumps(facts, sort_keys=True)}
    for method in record.methods:
        rest = {name: value for name, value in method.settings.items() if not name.endswith("optimizer")}
        optimizer = {name: value for name, value in _optimizer(method.settings).items() if name != RATE}
        found[method.entry.label] = json.dumps([method.preset, rest, optimizer], sort_keys=True)
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, nargs="+", help="compare.json of one comparison for each rate")
    parser.add_argument("--command", required=True, help="that made them")
    parser.add_argument("--into", type=Path, default=RESULTS, help="Markdown file that gets the section")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    arguments = parser.parse_args()
    try:
        records = [read_record(path) for path in arguments.records]
        found = tries(records)
    except ValueError as error:
        sys.exit(f"error: {error}")
    if arguments.json:
        told = {label: [_told(one) for one in members] for label, members in found.items()}
        print(json.dumps({"tries": told, "kept": {label: best(members).rate for label, members in found.items()}}))
        return
    put_section(arguments.into, TITLE, section(found, records[0], arguments.command))


if __name__ == "__main__":
    main()
