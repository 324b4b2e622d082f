"""On what methods are compared: gizmos and pairs of the pocket world, whose truth is known, as runs that learn them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline_lib.errors import ConfigError
from pipeline_lib.pocket.gizmo_run import ALL_PROMPTS, gizmo_settings, write_gizmo
from pipeline_lib.run_config import RunConfig, parse_config
from pipeline_lib.world.gizmos import CONFIRMATION, REPORTING, TUNING, Gizmo, gizmo
from pipeline_lib.world.pace import pace
from pipeline_lib.world.pairs import REPORTING_PAIRS, TUNING_PAIRS, Pair, pair

PAIR = "pair"
"""How two subjects move, in one word."""
_WORLDS: dict[str, Callable[[int], Gizmo | Pair]] = {"gizmo": gizmo, "pair": pair}
SETS: dict[str, Sequence[str]] = {
    "reporting": [str(index) for index in REPORTING],
    "tuning": [str(index) for index in TUNING],
    "all": [str(index) for index in (*TUNING, *REPORTING)],
    "confirmation": [str(index) for index in CONFIRMATION],
    "pairs": [f"pair:{index}" for index in REPORTING_PAIRS],
    "pairs-tuning": [f"pair:{index}" for index in TUNING_PAIRS],
}


def chosen_creatures(text: str) -> tuple[Gizmo | Pair, ...]:
    """Gizmos and pairs by names of sets, by number, and by world and number.

    Args:
        text: with commas, e.g. `reporting,pairs` or `0,3,pair:2`.

    Returns:
        They, in order, each once.

    Raises:
        InputError: something else, or there is no such gizmo or pair.
    """
    parts = [part.strip() for part in text.split(",")]
    found: dict[tuple[str, int], Gizmo | Pair] = {}
    for name in [name for part in parts for name in SETS.get(part, [part])]:
        world, _, number = name.rpartition(":")
        world = world or "gizmo"
        if world not in _WORLDS or not number.isdecimal():
            raise ConfigError(f"--gizmos {text}", expected=f"{', '.join(SETS)}, or numbers such as 0,3 and pair:2")
        found[world, int(number)] = _WORLDS[world](int(number))
    return tuple(found.values())


def creature_config(creature: Gizmo | Pair, folder: Path, template: RunConfig) -> RunConfig:
    """The run that learns a gizmo or a pair.

    Args:
        creature: which.
        folder: where :func:`creature_files` writes its clip and its prompts.
        template: base, method, sampling and training.

    Returns:
        The config.
    """
    values = template.model_dump()
    for section, own in gizmo_settings(creature, folder).items():
        values[section] = {**values[section], **own} if isinstance(own, dict) else own
    return parse_config(values, origin=creature.name)


def creature_files(creature: Gizmo | Pair, folder: Path) -> None:
    """Writes a clip and all of its prompts; the same bytes each time."""
    write_gizmo(creature, folder, ALL_PROMPTS)


def moves(creature: Gizmo | Pair) -> str:
    """How it moves: its pace, or `PAIR`."""
    return PAIR if isinstance(creature, Pair) else pace(creature.reference.subjects[0])


def chosen_gizmos(text: str) -> tuple[int, ...]:
    """Indices of gizmos; as :func:`chosen_creatures`, for who takes no pairs.

    Args:
        text: likewise.

    Returns:
        The indices, in order, each once.

    Raises:
        InputError: likewise, or a pair is among them.
    """
    found = chosen_creatures(text)
    if any(isinstance(one, Pair) for one in found):
        raise ConfigError(f"--gizmos {text}", expected="gizmos alone; `mannerism compare` takes pairs")
    return tuple(one.index for one in found)


def gizmo_config(index: int, folder: Path, template: RunConfig) -> RunConfig:
    """:func:`creature_config` of the gizmo of a number."""
    return creature_config(gizmo(index), folder, template)


def gizmo_files(index: int, folder: Path) -> None:
    """:func:`creature_files` of the gizmo of a number."""
    creature_files(gizmo(index), folder)
