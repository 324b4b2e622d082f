"""What is worth knowing about a comparison, beside its numbers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from pipeline_lib.compare.cells import Cell
from pipeline_lib.metrics.comparison import ComparedScores
from pipeline_lib.metrics.gate import TRUTH
from pipeline_lib.registry import loras_on_base
from pipeline_lib.run_config import RunConfig


def uneven(cells: Sequence[Cell]) -> list[str]:
    """A note where methods were not all run on the same concepts, so that their means are not of the same; or none."""
    done: dict[str, set[str]] = {}
    for cell in cells:
        done.setdefault(cell.entry, set()).update({cell.concept} if cell.status == "done" else ())
    if len(set(map(frozenset, done.values()))) < 2:
        return []
    return ["cells are missing, so that means of methods are over different concepts; the paired differences are not"]


def other_look(template: RunConfig, scores: ComparedScores) -> list[str]:
    """A note where the judge, which knows the world's own look, read samples of a base that LoRAs have changed."""
    named = [Path(lora.path) for lora in loras_on_base(template)]
    measured = {name for cells in scores.tables.values() for row in cells.values() for name in row}
    if not named or measured.isdisjoint(TRUTH):
        return []
    names = ", ".join(f"{path.parent.name}/{path.name}" for path in named)
    return [
        f"the base has LoRAs on it ({names}): the judge knows the world's own look, so that truth metrics also measure "
        "what they do to it; compare methods with each other, not with another base"
    ]


def counted_by_members(names: Collection[str]) -> list[str]:
    """A note on concepts that stand in the slices alone; or none.

    Args:
        names: of pairs whose members are compared too.

    Returns:
        The note.
    """
    if not names:
        return []
    return [f"{', '.join(sorted(names))}: in the slices alone, since their members may count by themselves"]
