"""Evaluate: every sample against the reference, and the reference itself through the autoencoder.

The reference is what training saw: the windows of all clips, and all pictures. The ceiling is each window after
the autoencoder, scored as a sample is, mean over windows; each picture alone where there are only pictures. Where
the truth is known, edit prompts have a ceiling of their own, the clip that they ask for after the autoencoder, and
chance is what clips of other concepts score.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline_lib.features.encoders import FrameEncoder, IdentityEncoder, ImageTextEncoder
from pipeline_lib.features.truth import TruthReader
from pipeline_lib.masks.segmenter import Segmenter
from pipeline_lib.media.clip import Clip
from pipeline_lib.media.write import write_video
from pipeline_lib.metrics.aggregate import ScoredSample, in_group, paired_differences, summary
from pipeline_lib.metrics.identity import measure_identity, score_identity
from pipeline_lib.metrics.looks import measure_looks, score_looks
from pipeline_lib.metrics.sample import Reference, measure_reference, score_sample
from pipeline_lib.metrics.windows import Window
from pipeline_lib.models.base import BaseModel
from pipeline_lib.observers import own_segmenter
from pipeline_lib.records import ArtifactRef, Caption, Prompt, SampleRecord
from pipeline_lib.registry import encoder_folder, open_truth, truth_weights
from pipeline_lib.sections import ENCODERS
from pipeline_lib.steps.caption import load_captions
from pipeline_lib.steps.generate import load_samples
from pipeline_lib.steps.layout import CEILING, SCORES_FILE, SUMMARY_FILE
from pipeline_lib.steps.mask import load_masks, mask_words
from pipeline_lib.steps.plan import SCORED
from pipeline_lib.steps.prepare import load_clips
from pipeline_lib.steps.sampling import unseeded_facts
from pipeline_lib.steps.step import Recipe, StepContext, StepResult, find_or_build
from pipeline_lib.storage import ArtifactStore, write_atomic
from pipeline_lib.storage.files import CHECKSUMS
from pipeline_lib.training.encode import to_frames, to_pixels, window_starts

STAGE_VERSION = 4
KIND = "scores"
MAX_PIECES = 16
"""Windows or pictures that go through the autoencoder for the ceiling, spread evenly over all."""


class Encoders(NamedTuple):
    """Those that look at the frames, each where there is one; the segmenter finds subjects for the identity encoder."""

    image_text: ImageTextEncoder | None
    image: FrameEncoder | None
    identity: IdentityEncoder | None
    segmenter: Segmenter | None


@dataclass(frozen=True)
class Piece:
    """A part of the reference that is encoded on its own: a window of a clip, or one picture.

    Attributes:
        source: index of the clip or set that it is of.
        name: e.g. "window 2 of wolf.mp4".
        frames: (t, h, w, 3) uint8; t is 1 for a picture.
    """

    source: int
    name: str
    frames: NDArray[np.uint8]


def evaluate(context: StepContext, inputs: dict[str, ArtifactRef]) -> StepResult:
    """Writes all scores and their summary, and the reference after the autoencoder.

    Args:
        context: base and encoders.
        inputs: `clips`, `captions`, `before` and `after`, the samples of both models; `masks`, where the run has them.

    Returns:
        The scores, found or made.
    """
    config = context.config
    folders = {role: encoder_folder(config, role) for role in ENCODERS}
    segmenter = own_segmenter(config) if folders["identity_encoder"] else None
    recipe = Recipe(
        step="evaluate",
        kind=KIND,
        version=STAGE_VERSION,
        inputs=[inputs[name] for name in SCORED if name in inputs],
        settings={
            **{role: _weights(folder) for role, folder in folders.items()},
            "segmenter": [*_weights(segmenter), mask_words(config)] if segmenter else [],
            "truth": [config.evaluation.truth, *map(CHECKSUMS.of, truth_weights(config))],
            "concept": config.concept_name,
        },
        extra=unseeded_facts(context),  # samples have seeds of their own: the run's does not count
    )

    def make(folder: Path, _: str) -> dict[str, float]:
        shelf, device = context.shelf, str(context.base.device)
        image_text, image, identity = folders.values()
        encoders = Encoders(
            shelf.encoder(image_text, device) if image_text else None,
            shelf.image_encoder(image, device) if image else None,
            shelf.identity_encoder(identity, device) if identity else None,
            shelf.segmenter(segmenter, device) if segmenter else None,
        )
        scored = _score(context, inputs, encoders, folder / CEILING)
        _write(folder, SCORES_FILE, [item.model_dump() for item in scored])
        groups = {"rows": scored, "reconstruction": in_group(scored, True), "edits": in_group(scored, False)}
        tables = {name: _plain_table(members) for name, members in groups.items()}
        differences = paired_differences(scored, "personalised", "base")
        changes = {name: change.model_dump() for name, change in differences.items()}
        _write(folder, SUMMARY_FILE, {**tables, "changes": changes})
        return {"samples": len(scored)}

    return find_or_build(context, recipe, make)


def load_scores(store: ArtifactStore, ref: ArtifactRef) -> list[ScoredSample]:
    """The scored samples of a finished artifact."""
    loaded = json.loads((store.folder(ref) / SCORES_FILE).read_text(encoding="utf-8"))
    return [ScoredSample.model_validate(item) for item in loaded]


def reference_windows(clips: Sequence[Clip], length: int) -> tuple[Window, ...]:
    """The windows of all videos among the clips, as training drew them.

    Args:
        clips: clips and sets of images; sets have no window, and do not count in `Window.clip`.
        length: frames of a window.

    Returns:
        At most 16 for each clip, named after it.
    """
    found = []
    for index, clip in enumerate(clip for clip in clips if clip.record.kind == "video"):
        starts = window_starts(len(clip.frames), length)
        for number, start in enumerate(starts, 1):
            name = f"window {number} of {clip.record.name}" if len(starts) > 1 else clip.record.name
            found.append(Window(clip=index, start=start, stop=start + length, name=name))
    return tuple(found)


def ceiling_pieces(clips: Sequence[Clip], windows: Sequence[Window]) -> list[Piece]:
    """What goes through the autoencoder: windows; single pictures where there are no clips.

    Args:
        clips: clips and sets of images.
        windows: of the clips.

    Returns:
        At most MAX_PIECES, spread evenly over all.
    """
    videos = [index for index, clip in enumerate(clips) if clip.record.kind == "video"]
    sources = [videos[window.clip] for window in windows]
    pieces = [
        Piece(at, window.name, clips[at].frames[window.place]) for at, window in zip(sources, windows, strict=True)
    ]
    if not pieces:
        pieces = [
            Piece(index, f"picture {number} of {clip.record.name}", image[None])
            for index, clip in enumerate(clips)
            for number, image in enumerate(clip.frames, 1)
        ]
    last = len(pieces) - 1
    return [pieces[at] for at in sorted({round(at) for at in np.linspace(0, last, min(MAX_PIECES, last + 1))})]


def through_autoencoder(base: BaseModel, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A window, or one picture, encoded and decoded: what the autoencoder alone loses."""
    return to_frames(base.decode_video(base.encode_video(to_pixels(frames))))


def _score(
    context: StepContext, inputs: dict[str, ArtifactRef], encoders: Encoders, ceiling: Path
) -> list[ScoredSample]:
    store, concept = context.store, context.config.concept_name
    clips, captions = load_clips(store, inputs["clips"]), load_captions(store, inputs["captions"])
    masks = load_masks(store, inputs["masks"]) if "masks" in inputs else []
    rules = context.base.spec.frame_rules
    rate, windows = rules.frames_per_second, reference_windows(clips, rules.num_frames)
    reference, pictures = _reference(clips, windows, encoders.image_text, rate), [clip.frames for clip in clips]
    looks = measure_looks(pictures, encoders.image)
    noun = mask_words(context.config) if encoders.segmenter else ""
    identity = measure_identity(pictures, encoders.identity, encoders.segmenter, noun, masks)
    truth = open_truth(context.config)
    todo = [pair for name in ("before", "after") for pair in load_samples(store, inputs[name])]
    pieces = ceiling_pieces(clips, windows)
    scored: list[ScoredSample] = []

    def add(unscored: ScoredSample, frames: NDArray[np.uint8], text: str, asked: Prompt) -> None:
        scores = score_sample(frames, reference, text, unscored.kind, encoders.image_text, rate)
        scores += [*score_identity(frames, identity, rate), *score_looks(frames, looks, rate)]
        if truth:
            scores += truth.score(frames, asked)
        scored.append(unscored.model_copy(update={"scores": tuple(scores)}))
        context.progress("evaluate", len(scored), len(todo) + len(pieces))

    for record, frames in todo:
        add(_unscored(record, concept), frames, record.prompt.filled(captions[0].class_noun), record.prompt)
    for piece in pieces:
        rebuilt = through_autoencoder(context.base, piece.frames)
        _write_view(rebuilt, ceiling / str(piece.source), rate)
        blank = ScoredSample(
            row="ceiling", prompt=piece.name, kind="reconstruction", seed=0, scores=(), concept=concept
        )
        text = _told(captions[piece.source], moving=len(piece.frames) > 1)
        add(blank, rebuilt, text, Prompt(text=text, kind="reconstruction"))
    if truth:
        scored += truth_rows(truth, [record.prompt for record, _ in todo], context.base, concept)
    return scored


def truth_rows(truth: TruthReader, prompts: Sequence[Prompt], base: BaseModel, concept: str) -> Iterator[ScoredSample]:
    """The rows that only the truth can give: the ceiling of edit prompts, and chance.

    Args:
        truth: of the run's concept.
        prompts: that were sampled; each counts once.
        base: whose autoencoder the ceiling goes through.
        concept: its name.

    Yields:
        A sample for each edit prompt in the row `ceiling`, and for each prompt and other concept in `chance`.
    """
    for prompt in {(prompt.kind, prompt.text): prompt for prompt in prompts}.values():
        blank = ScoredSample(row="chance", prompt=prompt.text, kind=prompt.kind, seed=0, scores=(), concept=concept)
        for number, scores in enumerate(truth.chance(prompt)):
            yield blank.model_copy(update={"seed": number, "scores": tuple(scores)})
        wanted = truth.wanted(prompt)
        if wanted is not None:
            scores = truth.score(through_autoencoder(base, wanted), prompt)
            yield blank.model_copy(update={"row": "ceiling", "scores": tuple(scores)})


def _unscored(record: SampleRecord, concept: str) -> ScoredSample:
    asked = record.prompt
    return ScoredSample(
        row=record.model,
        prompt=asked.text,
        kind=asked.kind,
        seed=record.seed,
        scores=(),
        concept=concept,
        negative=asked.negative,
    )


def _told(caption: Caption, *, moving: bool) -> str:
    return caption.full_prompt(caption.class_noun) if moving else caption.static_prompt(caption.class_noun)


def _write_view(frames: NDArray[np.uint8], folder: Path, rate: float) -> None:
    """The first window of a clip as an mp4, every picture as a PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    if len(frames) == 1:
        Image.fromarray(frames[0]).save(folder / f"{len(list(folder.iterdir())):03d}.png")
    elif not any(folder.iterdir()):
        write_video(frames, folder / "window.mp4", rate)


def _reference(
    clips: Sequence[Clip], windows: Sequence[Window], encoder: ImageTextEncoder | None, rate: float
) -> Reference:
    videos = [clip.frames for clip in clips if clip.record.kind == "video"]
    images = [clip.frames for clip in clips if clip.record.kind == "images"]
    return measure_reference(videos, encoder, rate, images=images, windows=windows)


def _plain_table(samples: Sequence[ScoredSample]) -> Mapping[str, Mapping[str, Any]]:
    return {row: {name: cell.model_dump() for name, cell in cells.items()} for row, cells in summary(samples).items()}


def _weights(folder: Path | None) -> list[str]:
    if folder is None:
        return []
    return [CHECKSUMS.of(path) for path in sorted(folder.iterdir()) if path.suffix in (".json", ".safetensors")]


def _write(folder: Path, name: str, values: Any) -> None:
    write_atomic(folder / name, json.dumps(values, indent=1, sort_keys=True, allow_nan=False))
