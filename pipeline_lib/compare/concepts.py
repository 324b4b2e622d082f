"""On what methods are compared: gizmos of the pocket world, whose truth is known, as the runs that learn them."""

from __future__ import annotations

from pathlib import Path

from pipeline_lib.errors import ConfigError
from pipeline_lib.pocket.gizmo_run import ALL_PROMPTS, gizmo_settings, write_gizmo
from pipeline_lib.run_config import RunConfig, parse_config
from pipeline_lib.world.gizmos import REPORTING, TUNING, gizmo
from pipeline_lib.world.pace import Pace, pace

SETS = {"reporting": REPORTING, "tuning": TUNING, "all": (*TUNING, *REPORTING)}


def chosen_gizmos(text: str) -> tuple[int, ...]:
    """Indices of gizmos: a set's name, or numbers with commas.

    Args:
        text: `reporting`, `tuning`, `all`, or e.g. `0,3`.

    Returns:
        The indices, in order, each once.

    Raises:
        InputError: neither, or there is no such gizmo.
    """
    if text in SETS:
        return SETS[text]
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise ConfigError(f"--gizmos {text}", expected=f"{', '.join(SETS)}, or numbers such as 0,3")
    return tuple(dict.fromkeys(gizmo(int(part)).index for part in text.split(",")))


def gizmo_config(index: int, folder: Path, template: RunConfig) -> RunConfig:
    """The run that learns a gizmo.

    Args:
        index: which gizmo.
        folder: where :func:`gizmo_files` writes its clip and its prompts.
        template: base, method, sampling and training.

    Returns:
        The config.

    Raises:
        InputError: there is no such gizmo.
    """
    values = template.model_dump()
    for section, own in gizmo_settings(index, folder).items():
        values[section] = {**values[section], **own} if isinstance(own, dict) else own
    return parse_config(values, origin=f"gizmo {index}")


def gizmo_files(index: int, folder: Path) -> None:
    """Writes a gizmo's clip and all of its prompts; the same bytes each time."""
    write_gizmo(index, folder, ALL_PROMPTS)


def gizmo_pace(index: int) -> Pace:
    """How a gizmo moves."""
    return pace(gizmo(index).reference.subjects[0])
