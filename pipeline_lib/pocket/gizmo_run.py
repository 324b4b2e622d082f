"""A gizmo as something to learn: its clip and its prompts as files, and the settings of a run on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline_lib.media.write import write_video
from pipeline_lib.storage import write_atomic
from pipeline_lib.world.gizmos import CLASS_NOUN, EditingPrompt, PromptKind, gizmo
from pipeline_lib.world.render import render
from pipeline_lib.world.vocabulary import FRAMES_PER_SECOND

ALL_PROMPTS: dict[PromptKind, int] = {"reconstruction": 1, "local": 100, "global": 100}


def gizmo_settings(index: int, folder: Path) -> dict[str, Any]:
    """The settings of a run on a gizmo, its truth among them.

    Args:
        index: which gizmo.
        folder: where :func:`write_gizmo` puts its files.

    Returns:
        Sections of a run config, as plain values.

    Raises:
        InputError: there is no such gizmo.
    """
    creature = gizmo(index)
    clip, prompts = _files(index, folder)
    place = creature.caption.removeprefix(f"{creature.static_caption} {creature.motion_caption} ")
    return {
        "concept": {"name": creature.name, "inputs": [str(clip)], "subject": CLASS_NOUN},
        "captions": [{"class_noun": CLASS_NOUN, "motion": creature.motion_caption, "background": place}],
        "samples": {"prompts_file": str(prompts)},
        "evaluation": {"truth": f"gizmo:{index}"},
    }


def write_gizmo(index: int, folder: Path, prompts: Mapping[PromptKind, int]) -> None:
    """Writes a gizmo's reference clip and prompts; the same bytes each time.

    Args:
        index: which gizmo.
        folder: made when missing.
        prompts: how many of each kind, in the gizmo's order; kinds in the order given.
    """
    clip, path = _files(index, folder)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [
        {"text": prompt.text, "kind": kind} for kind, count in prompts.items() for prompt in _of(index, kind)[:count]
    ]
    write_video(render(gizmo(index).reference).frames, clip, FRAMES_PER_SECOND)
    write_atomic(path, yaml.safe_dump(chosen))


def _files(index: int, folder: Path) -> tuple[Path, Path]:
    clip = folder / f"{gizmo(index).name.lower()}.mp4"
    return clip, clip.with_suffix(".prompts.yaml")


def _of(index: int, kind: PromptKind) -> list[EditingPrompt]:
    return [prompt for prompt in gizmo(index).editing_prompts if prompt.kind == kind]
