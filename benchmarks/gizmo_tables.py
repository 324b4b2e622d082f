"""Tables of the gizmo benchmark: means over samples, intervals over gizmos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline_lib.metrics import ScoredSample, Summary, summary
from pipeline_lib.metrics.aggregate import FEWEST_UNITS, in_group
from pipeline_lib.steps.run_folder import RunResult
from pipeline_lib.world.gizmos import gizmo

LINES = (
    ("reconstruction", "identity_accuracy"),
    ("reconstruction", "motion_fidelity"),
    ("edits", "edit_accuracy"),
    ("edits", "identity_accuracy"),
    ("edits", "motion_fidelity"),
)
ROWS = ("base", "personalised", "ceiling", "chance")


@dataclass(frozen=True)
class Outcome:
    """One gizmo, done.

    Attributes:
        index: which gizmo.
        result: of its run.
        samples: its scored samples, all rows.
        base_digest: the base's weights.
        seconds: that making what its steps hold took, whenever that was.
    """

    index: int
    result: RunResult
    samples: list[ScoredSample]
    base_digest: str
    seconds: float


def tables(samples: Sequence[ScoredSample]) -> dict[str, dict[str, dict[str, Summary]]]:
    """Group of prompts → row → metric → cell, over all gizmos; the interval is over gizmos where there are several."""
    groups = {"reconstruction": in_group(samples, True), "edits": in_group(samples, False)}
    return {name: summary(members) for name, members in groups.items()}


def figures(samples: Sequence[ScoredSample]) -> list[dict[str, Any]]:
    """The table: one line for each group and truth metric.

    Args:
        samples: of any gizmos.

    Returns:
        Plain values: `prompts`, `metric`, and for each row `mean`, `low`, `high` (None without) and `samples`.
    """
    found, lines = tables(samples), []
    few = len({sample.concept for sample in samples}) < FEWEST_UNITS
    for group, metric in LINES:
        cells = {row: found[group].get(row, {}).get(metric) for row in ROWS}
        plain = {row: cell.model_dump(include={"mean", "low", "high"}) for row, cell in cells.items() if cell}
        if few:  # an interval over prompts would say nothing of other gizmos
            plain = {row: {**cell, "low": None, "high": None} for row, cell in plain.items()}
        counts = {row: cell.num_samples for row, cell in cells.items() if cell}
        lines.append({"prompts": group, "metric": metric, **plain, "samples": counts})
    return lines


def report(outcomes: Sequence[Outcome], facts: dict[str, Any]) -> dict[str, Any]:
    """Everything as one object.

    Args:
        outcomes: of all gizmos.
        facts: preset, seeds, command.

    Returns:
        Plain values.
    """
    together = [sample for outcome in outcomes for sample in outcome.samples]
    judges = {s.encoder_digest for sample in together for s in sample.scores if s.encoder == "pocket judge"}
    return {
        **facts,
        "date": datetime.now(UTC).date().isoformat(),
        "gizmos": [gizmo(outcome.index).name for outcome in outcomes],
        "base_digest": ", ".join(sorted({outcome.base_digest for outcome in outcomes})),
        "judge_digest": ", ".join(sorted(judges)),
        "table": figures(together),
        "each": {gizmo(outcome.index).name: _each(outcome) for outcome in outcomes},
    }


def _each(outcome: Outcome) -> dict[str, Any]:
    found = tables(outcome.samples)
    numbers = {f"{metric} ({group})": found[group]["personalised"].get(metric) for group, metric in LINES}
    means = {name: None if cell is None else cell.mean for name, cell in numbers.items()}
    trained = sum(seconds for name, seconds in outcome.result.seconds.items() if name.startswith("train-"))
    return {**means, "run": outcome.result.run_id, "seconds": round(outcome.seconds, 1), "trained": round(trained, 1)}


def _cell(cell: dict[str, Any] | None) -> str:
    if cell is None or cell["mean"] is None:
        return "–"
    interval = "" if cell["low"] is None else f" [{cell['low']:.2f}, {cell['high']:.2f}]"
    return f"{cell['mean']:.2f}{interval}"


def as_lines(told: dict[str, Any]) -> list[str]:
    """The tables in Markdown, which reads well on a terminal too."""
    lines = [f"| prompts | metric | {' | '.join(ROWS)} |", "|---|---|" + "---|" * len(ROWS)]
    for line in told["table"]:
        cells = " | ".join(_cell(line.get(row)) for row in ROWS)
        lines.append(f"| {line['prompts']} | `{line['metric']}` | {cells} |")
    names = [f"{metric} ({group})" for group, metric in LINES]
    lines += ["", f"| gizmo | {' | '.join(names)} | s |", "|---|" + "---|" * (len(names) + 1)]
    for name, each in told["each"].items():
        numbers = " | ".join("–" if each[key] is None else f"{each[key]:.2f}" for key in names)
        lines.append(f"| {name} | {numbers} | {each['seconds']:.0f} |")
    return lines


def section(told: dict[str, Any]) -> list[str]:
    """What RESULTS.md says: how it was measured, on what, and the tables."""
    hashes = f"Base `{told['base_digest'][:12]}`, judge `{told['judge_digest'][:12]}`"
    return [
        f"{told['date']}, {told['machine']}: `{told['command']}`. {hashes}, seeds {told['seeds']}; "
        f"{len(told['gizmos'])} gizmos. "
        "Means over samples; in brackets, from five gizmos on, the 95 % bootstrap interval over gizmos.",
        "",
        *as_lines(told),
    ]
