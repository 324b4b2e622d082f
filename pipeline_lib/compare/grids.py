"""Samples side by side: a row for each entry, a column for a few prompts, a few frames of each video."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline_lib.compare.cells import Cell, run_record
from pipeline_lib.errors import ArtifactError
from pipeline_lib.metrics.comparison import BASE
from pipeline_lib.records import ArtifactRef, Prompt
from pipeline_lib.report.compare import Grid
from pipeline_lib.steps.generate import load_samples
from pipeline_lib.steps.prepare import load_clips
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.storage import ArtifactStore

SHOWN = {"reconstruction": 1, "local": 2, "global": 2, "user": 2}
"""Prompts of each kind in a grid."""
MOST_GRIDS, STILLS, HEIGHT = 12, 3, 96
"""Concepts that are shown; frames of each video; their height in pixels where they are higher."""

Frames = NDArray[np.uint8]
Shown = dict[str, bytes]
"""A WebP by prompt."""


def grids(state: StateFolder, cells: Sequence[Cell], about: Mapping[str, str]) -> tuple[Grid, ...]:
    """A grid for each concept.

    Args:
        state: where runs live.
        cells: of a comparison.
        about: what is known of a concept, by its name.

    Returns:
        Those of which there are samples, at most `MOST_GRIDS`.
    """
    concepts = list(dict.fromkeys(cell.concept for cell in cells if cell.status == "done"))
    made = (_grid(state, [cell for cell in cells if cell.concept == name], about.get(name, "")) for name in concepts)
    return tuple(islice((grid for grid in made if grid is not None), MOST_GRIDS))


def _grid(state: StateFolder, cells: Sequence[Cell], about: str) -> Grid | None:
    store, reference = state.store, b""
    rows: dict[str, Shown] = {}
    prompts: list[str] = []
    for cell in cells:
        record = run_record(state, cell.run_id) if cell.status == "done" else None
        if record is None:
            continue
        steps = record.steps
        try:
            if not rows:
                clip = load_clips(store, steps["prepare"].ref)[0].frames
                prompts, rows[BASE] = _shown(store, steps["generate-base"].ref)
                reference = stills(clip)
            _, rows[cell.entry] = _shown(store, steps["generate-personalised"].ref)
        except ArtifactError:  # pruned, or made elsewhere
            continue
    if not prompts:
        return None
    concept = cells[0].concept
    return Grid(
        concept=concept,
        about=about,
        reference=reference,
        prompts=tuple(text.replace("{subject}", concept) for text in prompts),
        rows=tuple((label, tuple(shown.get(text, b"") for text in prompts)) for label, shown in rows.items()),
    )


def _shown(store: ArtifactStore, ref: ArtifactRef) -> tuple[list[str], Shown]:
    """Prompts that are shown, and a picture of each, of the first seed."""
    left, pictures = dict(SHOWN), Shown()
    samples = load_samples(store, ref)
    first = samples[0][0].seed
    for sample, frames in samples:
        prompt: Prompt = sample.prompt
        if sample.seed == first and left[prompt.kind]:
            left[prompt.kind] -= 1
            pictures[prompt.text] = stills(frames)
    return list(pictures), pictures


def stills(frames: Frames) -> bytes:
    """The first, the middle and the last frame beside each other, as a WebP.

    Args:
        frames: (t, h, w, 3) uint8.

    Returns:
        The file's bytes.
    """
    picks = np.unique(np.linspace(0, len(frames) - 1, STILLS).round().astype(int))
    picture = Image.fromarray(np.concatenate(list(frames[picks]), axis=1))
    if picture.height > HEIGHT:
        width = max(1, round(picture.width * HEIGHT / picture.height))
        picture = picture.resize((width, HEIGHT), Image.Resampling.BICUBIC)
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=88)
    return content.getvalue()
