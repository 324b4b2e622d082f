"""What a comparison would run, told without Prefect, which is imported only when there is something to run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

from flows.concepts import Chosen, chosen_concepts
from pipeline_lib.compare.concepts import chosen_creatures, creature_config, moves
from pipeline_lib.compare.entries import Entry, check_shared_settings, chosen_entries, differing, entry_config
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.world.gizmos import Gizmo
from pipeline_lib.world.pairs import Pair


class Wanted(NamedTuple):
    """A cell that is wanted: an entry, a concept, and the run of both."""

    entry: str
    concept: str
    run: Chosen


class Plan(NamedTuple):
    """What is compared: the entries, how each concept moves (empty where that is not known), and all cells."""

    entries: list[Entry]
    concepts: dict[str, str]
    cells: list[Wanted]
    notes: list[str]


def plan(
    methods: Sequence[str], gizmos: str, concepts: Sequence[str], config: RunConfig, *, ablations: bool = False
) -> Plan:
    """What a comparison would run; nothing is written.

    Args:
        methods: as for :func:`flows.compare.compare`.
        gizmos: likewise.
        concepts: likewise.
        config: likewise.
        ablations: likewise.

    Returns:
        Entries, concepts and cells, by entry, then by concept.

    Raises:
        InputError: as :func:`flows.compare.compare` raises it.
    """
    # Versions of one concept by several methods are no candidates for its champion.
    tracking = config.tracking.model_copy(update={"register_model": False})
    template = config.model_copy(update={"tracking": tracking})
    entries = chosen_entries(methods, ablations=ablations)
    check_shared_settings(entries, template)
    entries, notes = differing(entries, template)
    folder = StateFolder.open().gizmos
    chosen = creatures(gizmos, concepts, ablations=ablations)
    cells, kinds = list[Wanted](), dict[str, str]()
    for entry in entries:
        own = entry_config(entry, template)
        made = [(creature_config(creature, folder, own), creature) for creature in chosen]
        for run, creature in made:
            kinds[run.concept_name] = moves(creature)
            cells.append(_wanted(entry, run.concept_name, run))
        given = [_of_comparison(one, own) for one in chosen_concepts([Path(text) for text in concepts], own)]
        names = _told_apart([one.name for one in given], [run.concept_name for run, _ in made])
        for name, one in zip(names, given, strict=True):
            kinds.setdefault(name, "")
            cells.append(_wanted(entry, name, one.config, one.problem))
    return Plan(entries, kinds, cells, notes)


def creatures(gizmos: str, concepts: Sequence[str], *, ablations: bool) -> tuple[Gizmo | Pair, ...]:
    """The gizmos and pairs that are compared on; arguments as for :func:`flows.compare.compare`."""
    if not gizmos and concepts:
        return ()
    return chosen_creatures(gizmos or ("tuning" if ablations else "reporting"))


def _wanted(entry: Entry, concept: str, config: RunConfig | None, problem: str = "") -> Wanted:
    return Wanted(entry.label, concept, Chosen(f"{concept} by {entry.label}", config, problem))


def _of_comparison(one: Chosen, template: RunConfig) -> Chosen:
    """A concept may say what it is; method, seeds and preset are the comparison's."""
    if one.config is None:
        return one
    samples = one.config.samples.model_copy(update={"seeds": template.samples.seeds})
    same = {"method": template.method, "seed": template.seed, "samples": samples}
    return Chosen(one.name, one.config.model_copy(update=same))


def _told_apart(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Concepts of one name numbered, since a name is what pairs samples of methods."""
    told = list[str]()
    for name in names:
        numbered = (f"{name} ({number})" for number in count(2))
        told.append(next(free for free in chain([name], numbered) if free not in {*taken, *told}))
    return told
