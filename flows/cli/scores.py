"""A run's scores as tables for people: reconstruction and edits apart, as the report has them."""

from __future__ import annotations

from flows.cli.output import put, put_table
from pipeline_lib.steps.run_scores import RunScores

Table = dict[str, dict[str, float]]

_ROWS = ("chance", "base", "personalised", "ceiling")
_BEST = "personalised, best seed"


def put_scores(result: RunScores) -> None:
    """Prints a table for each group of prompts that was sampled.

    Beside reconstruction stands the best over its seeds, where there are several; chance and ceiling are those of
    :class:`~pipeline_lib.steps.run_scores.RunScores`.

    Args:
        result: of a run; one without scores prints nothing.
    """
    groups: tuple[tuple[str, Table, dict[str, float]], ...] = (
        ("reconstruction prompt", result.scores_reconstruction, result.scores_best.get("personalised", {})),
        ("edit prompts", result.scores_edits, {}),
    )
    for title, table, best in groups:
        rows = [row for row in _ROWS if row in table]
        if not set(rows) - {"ceiling", "chance"}:
            continue
        columns = {row: table[row] for row in rows}
        if any(abs(best[name] - value) > 1e-9 for name, value in table.get("personalised", {}).items() if name in best):
            columns = {**{row: table[row] for row in rows if row != "ceiling"}, _BEST: best, **columns}
        names = dict.fromkeys(name for cells in columns.values() for name in cells)
        put()
        put_table([{title: name, **{row: _short(cells.get(name)) for row, cells in columns.items()}} for name in names])


def _short(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3f}"
