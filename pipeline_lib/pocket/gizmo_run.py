"""A gizmo, or a pair of them, as something to learn: its clip and its prompts as files, and the settings of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline_lib.media.write import write_video
from pipeline_lib.storage import write_atomic
from pipeline_lib.world.gizmos import EditingPrompt, Gizmo, PromptKind
from pipeline_lib.world.pairs import Pair
from pipeline_lib.world.render import render
from pipeline_lib.world.vocabulary import FRAMES_PER_SECOND

ALL_PROMPTS: dict[PromptKind, int] = {"reconstruction": 1, "local": 100, "global": 100}


def truth_of(creature: Gizmo | Pair) -> str:
    """The setting `evaluation.truth` of its run, e.g. `gizmo:4`: a name for it, too."""
    return f"{'pair' if isinstance(creature, Pair) else 'gizmo'}:{creature.index}"


def gizmo_settings(creature: Gizmo | Pair, folder: Path) -> dict[str, Any]:
    """The settings of a run on a gizmo or a pair, its truth among them; one word stands for a pair.

    Args:
        creature: which.
        folder: where :func:`write_gizmo` puts its files.

    Returns:
        Sections of a run config, as plain values.
    """
    clip, prompts = _files(creature, folder)
    noun = creature.static_caption.removeprefix("a ")
    place = creature.caption.removeprefix(f"{creature.static_caption} {creature.motion_caption} ")
    return {
        "concept": {"name": creature.name, "inputs": [str(clip)], "subject": noun},
        "captions": [{"class_noun": noun, "motion": creature.motion_caption, "background": place}],
        "samples": {"prompts_file": str(prompts)},
        "evaluation": {"truth": truth_of(creature)},
    }


def write_gizmo(creature: Gizmo | Pair, folder: Path, prompts: Mapping[PromptKind, int]) -> None:
    """Writes the reference clip and the prompts of a gizmo or a pair; the same bytes each time.

    Args:
        creature: which.
        folder: made when missing.
        prompts: how many of each kind, in its order; kinds in the order given.
    """
    clip, path = _files(creature, folder)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [
        {"text": prompt.text, "kind": kind} for kind, count in prompts.items() for prompt in _of(creature, kind)[:count]
    ]
    write_video(render(creature.reference).frames, clip, FRAMES_PER_SECOND)
    write_atomic(path, yaml.safe_dump(chosen))


def _files(creature: Gizmo | Pair, folder: Path) -> tuple[Path, Path]:
    clip = folder / f"{creature.name.lower().replace(' ', '-')}.mp4"
    return clip, clip.with_suffix(".prompts.yaml")


def _of(creature: Gizmo | Pair, kind: PromptKind) -> list[EditingPrompt]:
    return [prompt for prompt in creature.editing_prompts if prompt.kind == kind]
