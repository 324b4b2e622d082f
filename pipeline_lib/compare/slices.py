"""Slices of a comparison: by how a concept moves, and by how many subjects share its clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from pipeline_lib.compare.concepts import PAIR
from pipeline_lib.world.pace import Pace

ONE, TWO = "one subject", "two subjects"
PACES = get_args(Pace)


def slices(concepts: Mapping[str, str]) -> dict[str, set[str]]:
    """Which concepts are alike.

    Args:
        concepts: how each moves, by its name; `PAIR` for two, empty where that is not known.

    Returns:
        The names of each slice, in the order of the tables: the paces that there are, then one and two subjects
        where there are both.
    """
    alike = {kind: {name for name, moves in concepts.items() if moves == kind} for kind in (*PACES, PAIR)}
    two = alike.pop(PAIR)
    found = {pace: names for pace, names in alike.items() if names}
    return {**found, ONE: set().union(*found.values()), TWO: two} if found and two else found


def outside(found: Mapping[str, set[str]]) -> set[str]:
    """Who stands in no other table: pairs beside single subjects, whose gizmos would count twice.

    Args:
        found: from :func:`slices`.

    Returns:
        Their names.
    """
    return found.get(TWO, set())
