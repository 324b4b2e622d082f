"""Evaluate: every sample against the reference, and the reference itself through the autoencoder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.features.encoders import ImageTextEncoder
from pipeline_lib.media.clip import Clip
from pipeline_lib.media.write import write_video
from pipeline_lib.metrics.aggregate import ScoredSample, paired_differences, summary
from pipeline_lib.metrics.sample import Reference, measure_reference, score_sample
from pipeline_lib.models.base import BaseModel
from pipeline_lib.records import ArtifactRef, SampleRecord
from pipeline_lib.registry import encoder_folder
from pipeline_lib.steps.caption import load_captions
from pipeline_lib.steps.generate import load_samples
from pipeline_lib.steps.layout import SUMMARY_FILE
from pipeline_lib.steps.prepare import load_clips
from pipeline_lib.steps.step import Recipe, StepContext, StepResult, find_or_build
from pipeline_lib.storage import ArtifactStore, write_atomic
from pipeline_lib.storage.files import CHECKSUMS
from pipeline_lib.training.encode import to_frames, to_pixels

STAGE_VERSION = 1
KIND = "scores"
SCORES_FILE, CEILING_FILE = "scores.json", "ceiling.mp4"


def evaluate(context: StepContext, inputs: dict[str, ArtifactRef]) -> StepResult:
    """Writes all scores and their summary.

    Args:
        context: base and encoder.
        inputs: `clips`, `captions`, `before` and `after`, the samples of both models.

    Returns:
        The scores, found or made.
    """
    folder_of_encoder = encoder_folder(context.config)
    recipe = Recipe(
        step="evaluate",
        kind=KIND,
        version=STAGE_VERSION,
        inputs=[inputs[name] for name in ("clips", "captions", "before", "after")],
        settings={"encoder": _weights(folder_of_encoder), "concept": context.config.concept_name},
        extra=context.base_facts(),
    )

    def make(folder: Path, _: str) -> dict[str, float]:
        encoder = context.shelf.encoder(folder_of_encoder, str(context.base.device)) if folder_of_encoder else None
        scored, ceiling = _score(context, inputs, encoder)
        write_video(ceiling, folder / CEILING_FILE, context.base.spec.frame_rules.frames_per_second)
        _write(folder, SCORES_FILE, [item.model_dump() for item in scored])
        table = {
            row: {name: cell.model_dump() for name, cell in cells.items()} for row, cells in summary(scored).items()
        }
        changes = {
            name: change.model_dump() for name, change in paired_differences(scored, "personalised", "base").items()
        }
        _write(folder, SUMMARY_FILE, {"rows": table, "changes": changes})
        return {"samples": len(scored)}

    return find_or_build(context, recipe, make)


def load_scores(store: ArtifactStore, ref: ArtifactRef) -> list[ScoredSample]:
    """The scored samples of a finished artifact."""
    loaded = json.loads((store.folder(ref) / SCORES_FILE).read_text(encoding="utf-8"))
    return [ScoredSample.model_validate(item) for item in loaded]


def through_autoencoder(base: BaseModel, clip: Clip) -> NDArray[np.uint8]:
    """A clip's first window, or its images one by one, encoded and decoded: no sample can be nearer to it."""
    length = base.spec.frame_rules.num_frames
    pieces = [clip.frames[:length]] if clip.record.kind == "video" else [image[None] for image in clip.frames]
    decoded = [to_frames(base.decode_video(base.encode_video(to_pixels(piece)))) for piece in pieces]
    return np.concatenate(decoded)


def _score(
    context: StepContext, inputs: dict[str, ArtifactRef], encoder: ImageTextEncoder | None
) -> tuple[list[ScoredSample], NDArray[np.uint8]]:
    store, concept = context.store, context.config.concept_name
    clips = load_clips(store, inputs["clips"])
    noun = load_captions(store, inputs["captions"])[0]
    rate = context.base.spec.frame_rules.frames_per_second
    reference = _reference(clips, encoder, rate)
    todo: list[tuple[SampleRecord, NDArray[np.uint8]]] = [
        pair for name in ("before", "after") for pair in load_samples(store, inputs[name])
    ]
    scored = []
    for index, (record, frames) in enumerate(todo):
        text = record.prompt.filled(noun.class_noun)
        scores = score_sample(frames, reference, text, record.prompt.kind, encoder, rate)
        scored.append(
            ScoredSample(
                row=record.model,
                prompt=record.prompt.text,
                kind=record.prompt.kind,
                seed=record.seed,
                scores=tuple(scores),
                concept=concept,
            )
        )
        context.progress("evaluate", index + 1, len(todo) + 1)
    ceiling = through_autoencoder(context.base, clips[0])
    text = noun.full_prompt(noun.class_noun)
    scores = score_sample(ceiling, reference, text, "reconstruction", encoder, rate)
    prompt = noun.full_prompt("{subject}")
    scored.append(
        ScoredSample(row="ceiling", prompt=prompt, kind="reconstruction", seed=0, scores=tuple(scores), concept=concept)
    )
    return scored, ceiling


def _reference(clips: Sequence[Clip], encoder: ImageTextEncoder | None, rate: float) -> Reference:
    videos = [clip.frames for clip in clips if clip.record.kind == "video"]
    images = [clip.frames for clip in clips if clip.record.kind == "images"]
    return measure_reference(videos, encoder, rate, images=images)


def _weights(folder: Path | None) -> list[str]:
    if folder is None:
        return []
    return [CHECKSUMS.of(path) for path in sorted(folder.iterdir()) if path.suffix in (".json", ".safetensors")]


def _write(folder: Path, name: str, values: Any) -> None:
    write_atomic(folder / name, json.dumps(values, indent=1, sort_keys=True, allow_nan=False))
