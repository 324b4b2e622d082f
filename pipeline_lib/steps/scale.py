"""What a run's samples are held against, measured once, and how each of them is scored.

The reference is what training saw: the windows of all clips, and all pictures. The ceiling is each window after
the autoencoder, scored as a sample is, mean over windows; each picture alone where there are only pictures. Where
the truth is known, edit prompts have a ceiling of their own, the clip that they ask for after the autoencoder, and
there is chance, clips of other concepts: both scored as samples are, too, so that it is told how far up an encoder
goes for what was asked for, and how far down for somebody else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline_lib.features.encoders import FrameEncoder, IdentityEncoder, ImageTextEncoder
from pipeline_lib.masks.segmenter import Segmenter
from pipeline_lib.media.clip import Clip
from pipeline_lib.media.write import write_video
from pipeline_lib.metrics.aggregate import ScoredSample
from pipeline_lib.metrics.identity import SubjectIdentity, measure_identity, score_identity
from pipeline_lib.metrics.looks import Looks, measure_looks, score_looks
from pipeline_lib.metrics.sample import Reference, measure_reference, score_sample
from pipeline_lib.metrics.windows import Window
from pipeline_lib.models.base import BaseModel
from pipeline_lib.records import ArtifactRef, Caption, Prompt, SampleRecord, Score
from pipeline_lib.registry import open_truth
from pipeline_lib.steps.caption import load_captions
from pipeline_lib.steps.generate import load_samples, sample_records
from pipeline_lib.steps.mask import load_masks, mask_words
from pipeline_lib.steps.prepare import load_clips
from pipeline_lib.steps.step import StepContext
from pipeline_lib.training.encode import to_frames, to_pixels, window_starts

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


class Scale:
    """Scores samples of one run.

    Args:
        context: base, store and progress.
        inputs: `clips`, `captions`, and `masks` where the run has them.
        encoders: that look at the frames.

    Attributes:
        identity: who the reference's subject is; None without an identity encoder.
    """

    def __init__(self, context: StepContext, inputs: dict[str, ArtifactRef], encoders: Encoders) -> None:
        store, rules = context.store, context.base.spec.frame_rules
        self._context, self._encoders = context, encoders
        self._clips, self._captions = load_clips(store, inputs["clips"]), load_captions(store, inputs["captions"])
        self._rate, self._windows = rules.frames_per_second, reference_windows(self._clips, rules.num_frames)
        self._reference = _reference(self._clips, self._windows, encoders.image_text, self._rate)
        pictures = [clip.frames for clip in self._clips]
        masks = load_masks(store, inputs["masks"]) if "masks" in inputs else []
        noun = mask_words(context.config) if encoders.segmenter else ""
        self._looks: Looks | None = measure_looks(pictures, encoders.image)
        self.identity: SubjectIdentity | None = measure_identity(
            pictures, encoders.identity, encoders.segmenter, noun, masks
        )
        self._truth = open_truth(context.config)
        self._done = self._total = 0

    def expects(self, *refs: ArtifactRef, ceiling: bool = False) -> None:
        """Says once what will be scored, for the progress.

        Args:
            *refs: samples.
            ceiling: the reference, too, and what the truth gives for each prompt of the last of them.
        """
        more = len(ceiling_pieces(self._clips, self._windows)) if ceiling else 0
        more += len(self._prompts(refs[-1])) if ceiling and self._truth else 0
        self._total = self._total or more + sum(len(sample_records(self._context.store, ref)) for ref in refs)

    def samples(self, ref: ArtifactRef) -> list[ScoredSample]:
        """Scores of a model's samples, in their order."""
        scored = []
        for record, frames in load_samples(self._context.store, ref):
            text = record.prompt.filled(self._captions[0].class_noun)
            blank = _unscored(record, self._context.config.concept_name)
            scored.append(self._scored(blank, frames, text, record.prompt))
        return scored

    def ceiling(self, folder: Path) -> Iterator[ScoredSample]:
        """Scores of the reference after the autoencoder.

        Args:
            folder: gets what is seen then, in a folder for each clip or set of images.

        Yields:
            A sample for each window, or picture.
        """
        folder.mkdir()
        for piece in ceiling_pieces(self._clips, self._windows):
            rebuilt = through_autoencoder(self._context.base, piece.frames)
            _write_view(rebuilt, folder / str(piece.source), self._rate)
            text = _told(self._captions[piece.source], moving=len(piece.frames) > 1)
            blank = ScoredSample(
                row="ceiling",
                prompt=piece.name,
                kind="reconstruction",
                seed=0,
                scores=(),
                concept=self._context.config.concept_name,
            )
            yield self._scored(blank, rebuilt, text, Prompt(text=text, kind="reconstruction"))

    def by_truth(self, ref: ArtifactRef) -> Iterator[ScoredSample]:
        """The rows that only the truth can give: the ceiling of edit prompts, and chance.

        Args:
            ref: samples whose prompts are meant; each counts once.

        Yields:
            A sample for each edit prompt in the row `ceiling`, and for each prompt and other concept in `chance`.
        """
        if self._truth is None:
            return
        concept = self._context.config.concept_name
        for prompt in self._prompts(ref):
            text = prompt.filled(self._captions[0].class_noun)
            blank = ScoredSample(row="chance", prompt=prompt.text, kind=prompt.kind, seed=0, scores=(), concept=concept)
            for number, other in enumerate(self._truth.chance(prompt)):
                scores = (*self._beside(other.frames, text, prompt.kind), *other.scores)
                yield blank.model_copy(update={"seed": number, "scores": scores})
            wanted = self._truth.wanted(prompt)
            if wanted is not None:
                rebuilt = through_autoencoder(self._context.base, wanted)
                scores = (*self._beside(rebuilt, text, prompt.kind), *self._truth.score(rebuilt, prompt))
                yield blank.model_copy(update={"row": "ceiling", "scores": scores})
            self._one_done()

    def _prompts(self, ref: ArtifactRef) -> list[Prompt]:
        """Of samples, each once."""
        prompts = [record.prompt for record in sample_records(self._context.store, ref)]
        return list({(prompt.kind, prompt.text): prompt for prompt in prompts}.values())

    def _scored(self, unscored: ScoredSample, frames: NDArray[np.uint8], text: str, asked: Prompt) -> ScoredSample:
        scores = self._by_encoders(frames, text, unscored.kind)
        if self._truth:
            scores += self._truth.score(frames, asked)
        self._one_done()
        return unscored.model_copy(update={"scores": tuple(scores)})

    def _one_done(self) -> None:
        self._done += 1
        self._context.progress("evaluate", self._done, self._total)

    def _beside(self, frames: NDArray[np.uint8], text: str, kind: str) -> list[Score]:
        """None where the truth's clips are of other measures than the base's: their numbers would not compare."""
        measures = self._context.base.spec.frame_rules.num_frames, *self._clips[0].frames.shape[1:3]
        return self._by_encoders(frames, text, kind) if frames.shape[:3] == measures else []

    def _by_encoders(self, frames: NDArray[np.uint8], text: str, kind: str) -> list[Score]:
        return [
            *score_sample(frames, self._reference, text, kind, self._encoders.image_text, self._rate),
            *score_identity(frames, self.identity, self._rate),
            *score_looks(frames, self._looks, self._rate),
        ]


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
