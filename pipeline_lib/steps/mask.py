"""Mask: where the subject is in every frame, for a loss that looks at the subject alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.masks.track import MaskTrack
from pipeline_lib.media.clip import Clip
from pipeline_lib.observers import open_segmenter, segmenter_path
from pipeline_lib.records import ArtifactRef
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.caption import class_noun
from pipeline_lib.steps.prepare import load_clips
from pipeline_lib.steps.step import Recipe, StepContext, StepResult, find_or_build
from pipeline_lib.storage import ArtifactStore
from pipeline_lib.storage.files import CHECKSUMS

STAGE_VERSION = 1
KIND = "masks"
_OUTSIDE = 0.3  # brightness of what is not the subject, in pictures for people


def mask(context: StepContext, clips: ArtifactRef) -> StepResult:
    """Writes a :class:`~pipeline_lib.masks.track.MaskTrack` for each clip or set of images, in `<n>/`.

    Args:
        context: the config's segmenter and words.
        clips: of the step prepare.

    Returns:
        The masks, found or made; a note for each clip with frames in which the subject was not found.

    Raises:
        InputError: the subject is found in no frame of a clip, or given masks do not fit.
    """
    config = context.config
    words = mask_words(config)
    recipe = Recipe(
        step="mask",
        kind=KIND,
        version=STAGE_VERSION,
        inputs=[clips],
        settings={"segmenter": _identity(config), "words": words},
    )

    def make(folder: Path, _: str) -> dict[str, float]:
        segmenter = open_segmenter(config, str(context.base.device))
        tracks = [segmenter.segment(clip.frames, words) for clip in load_clips(context.store, clips)]
        for index, track in enumerate(tracks):
            track.save(folder / str(index))
        areas = np.concatenate([track.area for track in tracks])
        return {
            "frames": len(areas),
            "empty_frames": sum(len(track.empty_frames()) for track in tracks),
            "mean_area": round(float(areas.mean()), 4),
        }

    result = find_or_build(context, recipe, make)
    notes = mask_notes(load_clips(context.store, clips), load_masks(context.store, result.ref))
    return result.model_copy(update={"notes": notes})


def mask_words(config: RunConfig) -> str:
    """What the segmenter looks for: the config's own words, else the class noun."""
    return config.mask.subject or class_noun(config)


def load_masks(store: ArtifactStore, ref: ArtifactRef) -> list[MaskTrack]:
    """The mask tracks of a finished artifact, one for each clip."""
    folder = store.folder(ref)
    return [MaskTrack.load(path) for path in sorted(folder.glob("[0-9]*"), key=lambda path: int(path.name))]


def mask_notes(clips: list[Clip], tracks: list[MaskTrack]) -> tuple[str, ...]:
    """What a person should know: frames in which the subject was not found.

    Args:
        clips: clips or sets of images.
        tracks: one for each.

    Returns:
        A note for each clip with such frames.
    """
    empty = [(clip.record.name, track.empty_frames()) for clip, track in zip(clips, tracks, strict=True)]
    return tuple(
        f"{name}: the subject was not found in {'frame' if len(frames) == 1 else 'frames'} "
        f"{', '.join(map(str, frames))}: left out of the training"
        for name, frames in empty
        if frames
    )


def masked_frames(clip: Clip, track: MaskTrack) -> NDArray[np.uint8]:
    """The clip's frames with all but the subject darkened, (frames, height, width, 3) uint8."""
    light = _OUTSIDE + (1 - _OUTSIDE) * track.masks[..., None]
    return np.rint(clip.frames * light).astype(np.uint8)


def _identity(config: RunConfig) -> str | list[list[str]]:
    """What masks depend on: the segmenter's name, or the contents of its folder or of the given files."""
    path = segmenter_path(config)
    if path is None:
        return config.mask.segmenter
    if path.is_file():
        return [[path.name, CHECKSUMS.of(path)]]
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return [[file.relative_to(path).as_posix(), CHECKSUMS.of(file)] for file in files]
