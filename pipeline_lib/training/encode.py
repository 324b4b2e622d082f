"""Encoding once: frames, windows and captions of a concept become :class:`TrainingData`."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline_lib.errors import InputError
from pipeline_lib.masks.track import MaskTrack
from pipeline_lib.media.clip import Clip
from pipeline_lib.models.base import BaseModel
from pipeline_lib.records import Caption, Wording
from pipeline_lib.training.crops import Crop, CropSettings, draw_crops
from pipeline_lib.training.data import LatentSet, TrainingData, empty_set
from pipeline_lib.training.text import TokenDropSettings, encode_texts

MAX_WINDOWS = 16
MAX_HELD_OUT = 4


@dataclass(frozen=True, kw_only=True)
class EncodingSettings:
    """What a method needs encoded.

    Attributes:
        num_frames: size of the frame set over all sources, spread evenly; 0 takes every frame.
        drop: text-token masking.
        subject: the words that stand for the subject in every prompt, class noun included.
        motion: the word for the learned motion (:class:`~pipeline_lib.records.Wording`); empty for none.
        learned: learned word to the sentinel that stands for it.
        seed: of the masked variants and of the crops.
        crops: of the frame set's frames, encoded beside them.
    """

    num_frames: int
    drop: TokenDropSettings
    subject: str
    motion: str = ""
    learned: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    crops: CropSettings = field(default_factory=CropSettings)

    def facts(self) -> dict[str, Any]:
        """What the key of encoded data depends on; crops, which came later, only where there are any."""
        told = dataclasses.asdict(self)
        if not self.crops.each:
            del told["crops"]
        return told


def to_pixels(frames: NDArray[np.uint8]) -> Tensor:
    """Frames (t, h, w, 3) uint8 to pixels (1, 3, t, h, w) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def to_frames(pixels: Tensor) -> NDArray[np.uint8]:
    """Pixels (1, 3, t, h, w) in [-1, 1] to frames (t, h, w, 3) uint8; the inverse of :func:`to_pixels`."""
    scaled = ((pixels[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.permute(1, 2, 3, 0).contiguous().cpu().numpy()


def encode_training_data(
    base: BaseModel,
    clips: Sequence[Clip],
    captions: Sequence[Caption],
    settings: EncodingSettings,
    masks: Sequence[MaskTrack] | None = None,
) -> TrainingData:
    """Encodes a concept's sources for every stage of a method.

    Args:
        base: its encoders are used here, and only here.
        clips: already at the base's size and rate; sets of images give frames only.
        captions: one per clip.
        settings: what to encode.
        masks: one per clip, of its frames and size: the loss looks at the subject alone. A frame whose mask is
            empty is left out and named in the result; None: whole pictures count.

    Returns:
        Latents, their masks and text, on the CPU, float32.

    Raises:
        InputError: no sources, not one caption and one mask per source, or the subject is in no frame.
    """
    if not clips or len(clips) != len(captions):
        raise InputError("every clip needs one caption", got=f"{len(clips)} clips, {len(captions)} captions")
    empty = _empty_frames(clips, masks)
    length = base.spec.frame_rules.num_frames
    used, held_out = choose_frames([len(clip.frames) for clip in clips], settings.num_frames, empty)
    windows = [
        (source, start)
        for source, clip in enumerate(clips)
        if clip.record.kind == "video"
        for start in window_starts(len(clip.frames), length, {frame for owner, frame in empty if owner == source})
    ]
    pieces = _Pieces(base, clips, masks, empty)
    frames = pieces.encode(used, 1).beside(pieces.encode_crops(used, settings))
    static, full = training_prompts(captions, settings)
    return TrainingData(
        frames=frames,
        held_out_frames=pieces.encode(held_out, 1) if held_out else empty_set(frames.latents),
        windows=pieces.encode(windows, length) if windows else empty_set(frames.latents),
        frame_text=encode_texts(base, static, settings.drop, settings.learned, settings.seed),
        clip_text=encode_texts(base, full, settings.drop, settings.learned, settings.seed),
        empty_frames=tuple(sorted(empty)),
    )


def choose_frames(
    lengths: Sequence[int], count: int, empty: Collection[tuple[int, int]] = ()
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The frame set, spread evenly over all sources, and frames to hold out.

    Args:
        lengths: frames of each source.
        count: size of the set; 0, or more than there are, takes all.
        empty: (source, frame) of frames without the subject, which are in neither.

    Returns:
        Two lists of (source, frame): the set, and at most four others from between them.
    """
    places = [(source, frame) for source, length in enumerate(lengths) for frame in range(length)]
    every = [place for place in places if place not in empty]
    if count == 0 or count >= len(every):
        return every, []
    chosen = {round(at) for at in np.linspace(0, len(every) - 1, count)}
    rest = [at for index, at in enumerate(every) if index not in chosen]
    picks = sorted({round(at) for at in np.linspace(0, len(rest) - 1, min(MAX_HELD_OUT, len(rest)))})
    return [every[index] for index in sorted(chosen)], [rest[index] for index in picks]


def choose_crops(
    places: Sequence[tuple[int, int]],
    clips: Sequence[Clip],
    settings: EncodingSettings,
    masks: Sequence[MaskTrack] | None = None,
) -> list[tuple[int, int, Crop]]:
    """The random crops that are encoded beside the frame set.

    Args:
        places: (source, frame) of the set.
        clips: all sources.
        settings: how many crops, how large, and the seed.
        masks: one per clip, where there are masks: a crop that misses the subject is left out.

    Returns:
        Source, frame and crop of each.
    """
    return [
        (source, at, crop)
        for index, (source, at) in enumerate(places)
        for crop in draw_crops(settings.crops, clips[source].frames.shape[1:3], settings.seed, index)
        if masks is None or crop.shows(masks[source].masks[at])
    ]


def window_starts(length: int, window: int, empty: Collection[int] = ()) -> list[int]:
    """Starts of at most 16 windows, spread evenly over a clip; the first and the last fit exactly.

    Each window is encoded on its own: with a causal autoencoder a slice of a clip's latents is not
    what the model was trained on.

    Args:
        length: frames of the clip.
        window: frames of a window.
        empty: frames without the subject; a window of nothing else is left out.

    Returns:
        First frames, increasing.

    Raises:
        InputError: the clip is shorter than a window.
    """
    if length < window:
        raise InputError(f"a clip of {length} frames is shorter than the base's {window}")
    every = [start for start in range(length - window + 1) if not set(range(start, start + window)) <= set(empty)]
    return [
        every[at] for at in sorted({round(at) for at in np.linspace(0, len(every) - 1, min(MAX_WINDOWS, len(every)))})
    ]


def training_prompts(captions: Sequence[Caption], settings: EncodingSettings) -> tuple[list[str], list[str]]:
    """What the text encoder reads in training.

    Args:
        captions: one per source.
        settings: the words for subject and motion.

    Returns:
        The static prompts, and the static and dynamic ones; one of each per source.
    """
    static = [caption.static_prompt(settings.subject) for caption in captions]
    full = [
        Wording(subject=settings.subject, motion=settings.motion, phrases=(caption.motion,)).fill(
            caption.full_prompt("{subject}")
        )
        for caption in captions
    ]
    return static, full


def _empty_frames(clips: Sequence[Clip], masks: Sequence[MaskTrack] | None) -> set[tuple[int, int]]:
    if masks is None:
        return set()
    shapes = [clip.frames.shape[:3] for clip in clips], [track.masks.shape for track in masks]
    if shapes[0] != shapes[1]:
        raise InputError(
            "every clip needs masks of its own frames and size", got=str(shapes[1]), expected=str(shapes[0])
        )
    empty = {(source, frame) for source, track in enumerate(masks) for frame in track.empty_frames()}
    if len(empty) == sum(len(clip.frames) for clip in clips):
        raise InputError("the masks are empty in every frame", fix="name the subject otherwise, or train without masks")
    return empty


@dataclass(frozen=True)
class _Pieces:
    """Stretches of clips, each encoded on its own, and their masks."""

    base: BaseModel
    clips: Sequence[Clip]
    masks: Sequence[MaskTrack] | None
    empty: Collection[tuple[int, int]]

    def encode(self, places: Sequence[tuple[int, int]], length: int) -> LatentSet:
        """The stretches of `length` frames from each (source, start) on."""
        latents = torch.cat(
            [self.base.encode_video(to_pixels(self.clips[source].frames[at : at + length])) for source, at in places]
        )
        masks = None
        if self.masks is not None:
            masks = torch.stack([self._mask(source, at, length, latents.shape[2:]) for source, at in places])
        return LatentSet(latents, torch.tensor([source for source, _ in places], dtype=torch.long), masks)

    def encode_crops(self, places: Sequence[tuple[int, int]], settings: EncodingSettings) -> list[LatentSet]:
        """Random crops of frames (source, frame), each a set of its own."""
        return [self._encode_crop(*drawn) for drawn in choose_crops(places, self.clips, settings, self.masks)]

    def _encode_crop(self, source: int, at: int, crop: Crop) -> LatentSet:
        latents = self.base.encode_video(to_pixels(crop.frame(self.clips[source].frames[at])[None]))
        mask = None
        if self.masks is not None:
            seen = MaskTrack(crop.mask(self.masks[source].masks[at])[None])
            mask = torch.from_numpy(seen.latent_mask(*latents.shape[2:]))[None, None]
        return LatentSet(latents, torch.tensor([source]), mask)

    def _mask(self, source: int, start: int, length: int, size: Sequence[int]) -> Tensor:
        assert self.masks is not None
        seen = self.masks[source].masks[start : start + length].copy()
        seen[[frame - start for owner, frame in self.empty if owner == source and 0 <= frame - start < length]] = 0
        t, h, w = size
        return torch.from_numpy(MaskTrack(seen).latent_mask(t, h, w))[None]
