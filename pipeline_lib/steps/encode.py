"""Encode: frames, windows and prompts become latents and text conditioning, once for all stages."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipeline_lib.records import ArtifactRef
from pipeline_lib.steps.caption import load_captions
from pipeline_lib.steps.mask import load_masks
from pipeline_lib.steps.prepare import load_clips
from pipeline_lib.steps.step import Recipe, StepContext, StepResult, find_or_build
from pipeline_lib.training.encode import EncodingSettings, encode_training_data

STAGE_VERSION = 2
KIND = "latents"


def encode(
    context: StepContext, clips: ArtifactRef, captions: ArtifactRef, masks: ArtifactRef | None = None
) -> StepResult:
    """Writes the :class:`~pipeline_lib.training.data.TrainingData` of a concept.

    Args:
        context: method and base.
        clips: of the step prepare.
        captions: of the step caption.
        masks: of the step mask, where the loss looks at the subject alone.

    Returns:
        The latents and their text, found or made.
    """
    spoken = load_captions(context.store, captions)
    settings = encoding_settings(context, spoken[0].class_noun)
    recipe = Recipe(
        step="encode",
        kind=KIND,
        version=STAGE_VERSION,
        inputs=[clips, captions, *([masks] if masks else [])],
        settings=settings.facts(),
        extra=context.base_facts(),
    )

    def make(folder: Path, _: str) -> dict[str, float]:
        tracks = load_masks(context.store, masks) if masks else None
        data = encode_training_data(context.base, load_clips(context.store, clips), spoken, settings, tracks)
        data.save(folder)
        return {"frames": len(data.frames), "windows": len(data.windows)}

    return find_or_build(context, recipe, make)


def encoding_settings(context: StepContext, class_noun: str) -> EncodingSettings:
    """What the run's method wants encoded."""
    choice = context.method
    wanted = choice.method.encoding(choice.settings, context.base, class_noun)
    return dataclasses.replace(wanted, seed=context.config.seed)
