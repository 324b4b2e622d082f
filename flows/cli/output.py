"""Words and objects on standard output."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console

console = Console(stderr=True)


def put_json(value: Any) -> None:
    """One JSON object, on a line of its own."""
    sys.stdout.write(json.dumps(value, default=str) + "\n")
    sys.stdout.flush()


def put(text: str = "") -> None:
    """A line for people."""
    sys.stdout.write(text + "\n")


def put_table(rows: list[dict[str, Any]]) -> None:
    """Rows as aligned columns; the keys are the heads."""
    if not rows:
        return
    heads = list(rows[0])
    cells = [[str(row.get(head, "")) for head in heads] for row in rows]
    widths = [max(len(line[column]) for line in [heads, *cells]) for column in range(len(heads))]
    for line in [heads, *cells]:
        put("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
