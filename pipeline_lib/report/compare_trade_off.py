"""A comparison's trade-off: a plot of keeping the subject against following the prompt, and tables of both at once."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from pipeline_lib.metrics import CATALOG
from pipeline_lib.metrics.comparison import BASE, ComparedScores
from pipeline_lib.metrics.gate import TRUTH
from pipeline_lib.report.charts import Dot, scatter_chart
from pipeline_lib.report.compare_numbers import Number, as_change, as_number, ends_of, row_label
from pipeline_lib.report.wording import counted, number

TOGETHER = {
    ("identity_accuracy", "edit_accuracy"): "The subject, edited as asked",
    TRUTH: "The subject, edited as asked and moving as it does",
}
"""What metrics ask at once."""


def trade_off_chart(scores: ComparedScores) -> Markup | None:
    """Keeping the subject against following the prompt, with the Pareto front; None without the metrics."""
    told = scores.trade_off
    if told is None:
        return None
    dots = [
        Dot(
            style="base" if row == BASE else "personalised" if row in told.front else "",
            label=row_label(row),
            x=across.mean,
            y=up.mean,
            x_ends=ends_of(across),
            y_ends=ends_of(up),
        )
        for row, (across, up) in told.points.items()
    ]
    front = [(told.points[row][0].mean, told.points[row][1].mean) for row in told.front]
    x, y = CATALOG[told.across], CATALOG[told.up]
    title = "; ".join(f"{dot.label}: {x.short} {number(dot.x, 2)}, {y.short} {number(dot.y, 2)}" for dot in dots)
    return scatter_chart(dots, front, title=title, x_label=f"{x.label} ({x.name})", y_label=f"{y.label} ({y.name})")


@dataclass(frozen=True)
class TogetherTable:
    """Metrics at once: what they ask, of how many samples; of each row its mean, and what it has above the first."""

    title: str
    told: str
    lines: tuple[tuple[str, Number, Number], ...]


def together_tables(scores: ComparedScores) -> list[TogetherTable]:
    """Both sides of the trade-off at once, and with the motion; none where the truth is not known."""
    if scores.trade_off is None:
        return []
    return [
        TogetherTable(
            title=TOGETHER[told.metrics],
            told=f"up to {counted(max((one.num_values for one in told.means.values()), default=0), 'sample')} a row",
            lines=tuple(
                (
                    row_label(row),
                    as_number(mean, told.metrics[0]),
                    as_change(told.gains.get(row), CATALOG[told.metrics[0]]),
                )
                for row, mean in told.means.items()
            ),
        )
        for told in scores.trade_off.together
    ]
