"""Encoding once: frames, windows and captions of a concept become :class:`TrainingData`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline_lib.errors import InputError
from pipeline_lib.media.clip import Clip
from pipeline_lib.models.base import BaseModel
from pipeline_lib.records import Caption, Wording
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
        seed: of the masked variants.
    """

    num_frames: int
    drop: TokenDropSettings
    subject: str
    motion: str = ""
    learned: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0


def to_pixels(frames: NDArray[np.uint8]) -> Tensor:
    """Frames (t, h, w, 3) uint8 to pixels (1, 3, t, h, w) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def to_frames(pixels: Tensor) -> NDArray[np.uint8]:
    """Pixels (1, 3, t, h, w) in [-1, 1] to frames (t, h, w, 3) uint8; the inverse of :func:`to_pixels`."""
    scaled = ((pixels[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.permute(1, 2, 3, 0).contiguous().cpu().numpy()


def encode_training_data(
    base: BaseModel, clips: Sequence[Clip], captions: Sequence[Caption], settings: EncodingSettings
) -> TrainingData:
    """Encodes a concept's sources for every stage of a method.

    Args:
        base: its encoders are used here, and only here.
        clips: already at the base's size and rate; sets of images give frames only.
        captions: one per clip.
        settings: what to encode.

    Returns:
        Latents and text, on the CPU, float32.

    Raises:
        InputError: no sources, or not one caption per source.
    """
    if not clips or len(clips) != len(captions):
        raise InputError("every clip needs one caption", got=f"{len(clips)} clips, {len(captions)} captions")
    used, held_out = choose_frames([len(clip.frames) for clip in clips], settings.num_frames)
    frames = _encode([clips[source].frames[at : at + 1] for source, at in used], base)
    spare = _encode([clips[source].frames[at : at + 1] for source, at in held_out], base)
    window_at = [
        (source, start)
        for source, clip in enumerate(clips)
        if clip.record.kind == "video"
        for start in window_starts(len(clip.frames), base.spec.frame_rules.num_frames)
    ]
    length = base.spec.frame_rules.num_frames
    windows = _encode([clips[source].frames[start : start + length] for source, start in window_at], base)
    static, full = training_prompts(captions, settings)
    return TrainingData(
        frames=_labelled(frames, used),
        held_out_frames=_labelled(spare, held_out) if held_out else empty_set(frames),
        windows=_labelled(windows, window_at) if window_at else empty_set(frames),
        frame_text=encode_texts(base, static, settings.drop, settings.learned, settings.seed),
        clip_text=encode_texts(base, full, settings.drop, settings.learned, settings.seed),
    )


def choose_frames(lengths: Sequence[int], count: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The frame set, spread evenly over all sources, and frames to hold out.

    Args:
        lengths: frames of each source.
        count: size of the set; 0, or more than there are, takes all.

    Returns:
        Two lists of (source, frame): the set, and at most four others from between them.
    """
    every = [(source, frame) for source, length in enumerate(lengths) for frame in range(length)]
    if count == 0 or count >= len(every):
        return every, []
    chosen = {round(at) for at in np.linspace(0, len(every) - 1, count)}
    rest = [at for index, at in enumerate(every) if index not in chosen]
    picks = sorted({round(at) for at in np.linspace(0, len(rest) - 1, min(MAX_HELD_OUT, len(rest)))})
    return [every[index] for index in sorted(chosen)], [rest[index] for index in picks]


def window_starts(length: int, window: int) -> list[int]:
    """Starts of at most 16 windows, spread evenly over a clip; the first and the last fit exactly.

    Each window is encoded on its own: with a causal autoencoder a slice of a clip's latents is not
    what the model was trained on.
    """
    last = length - window
    if last < 0:
        raise InputError(f"a clip of {length} frames is shorter than the base's {window}")
    return sorted({round(at) for at in np.linspace(0, last, min(MAX_WINDOWS, last + 1))})


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


def _encode(pieces: Iterable[NDArray[np.uint8]], base: BaseModel) -> Tensor:
    latents = [base.encode_video(to_pixels(piece)) for piece in pieces]
    return torch.cat(latents) if latents else torch.zeros(0)


def _labelled(latents: Tensor, places: Sequence[tuple[int, int]]) -> LatentSet:
    return LatentSet(latents, torch.tensor([source for source, _ in places], dtype=torch.long))
