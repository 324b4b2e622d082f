"""What a stage trains on, encoded once: latents of frames and clips, and text with its masked variants."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline_lib.errors import ArtifactError
from pipeline_lib.models.base import BaseModel, Conditioning
from pipeline_lib.storage.tensors import save_tensors

SUBJECT_TOKEN = "subject"
MOTION_TOKEN = "motion"
LEARNED_WORDS = (SUBJECT_TOKEN, MOTION_TOKEN)  # the n-th is spelt as the base's n-th sentinel


@dataclass(frozen=True)
class TextBank:
    """Encoded prompts. Each prompt owns `variants` consecutive rows; the first of them is the whole prompt.

    The others hide random tokens (text-token masking). `learned` tells, for each learned word and each
    row, at which token positions its vector goes; hidden positions are left out. `row_rms` is the root mean
    square of an ordinary token's row, the scale that a learned vector is compared with; 0 where none is.
    """

    prompts: tuple[str, ...]
    variants: int
    conditioning: Conditioning
    learned: Mapping[str, tuple[tuple[int, ...], ...]]
    token_counts: tuple[int, ...]
    row_rms: float = 0.0

    def row(self, prompt: int, variant: int = 0) -> int:
        """Row of a prompt's variant."""
        return prompt * self.variants + variant


@dataclass(frozen=True)
class LatentSet:
    """Latents of one shape, each with the index of its prompt.

    `latents` is (n, c, t, h, w), `prompt` (n,) int64. `mask` tells where the subject is, (n, 1, t, h, w) float32 in
    [0, 1]; None where the whole picture counts.
    """

    latents: Tensor
    prompt: Tensor
    mask: Tensor | None = None

    def __len__(self) -> int:
        return int(self.latents.shape[0])

    def beside(self, others: Sequence[LatentSet]) -> LatentSet:
        """These, and after them others of the same shape, all with masks or all without."""
        if not others:
            return self
        sets = [self, *others]
        masks = [one.mask for one in sets if one.mask is not None]
        assert len(masks) in (0, len(sets)), "some have masks and some have none"
        return LatentSet(
            torch.cat([one.latents for one in sets]),
            torch.cat([one.prompt for one in sets]),
            torch.cat(masks) if masks else None,
        )

    def first(self, count: int) -> LatentSet:
        """The first few of them."""
        return LatentSet(self.latents[:count], self.prompt[:count], None if self.mask is None else self.mask[:count])


@dataclass(frozen=True)
class TrainingData:
    """All that a run's stages train on.

    Attributes:
        frames: the unordered set of Stage I, one-frame clips, with static prompts.
        held_out_frames: frames of the same clips that no stage sees; may be empty.
        windows: clips of the base's own length, in order; empty where only images were given.
        frame_text: static prompts, one per source.
        clip_text: static and dynamic prompts, one per source.
        empty_frames: (source, frame) of frames whose mask is empty: none of them is in a frame set, and none
            counts in a window's loss.
    """

    frames: LatentSet
    held_out_frames: LatentSet
    windows: LatentSet
    frame_text: TextBank
    clip_text: TextBank
    empty_frames: tuple[tuple[int, int], ...] = ()

    @property
    def masked(self) -> bool:
        """Whether masks were given, and the loss looks at the subject alone."""
        return self.frames.mask is not None

    def save(self, folder: Path) -> None:
        """Writes `latents.safetensors`, `frame_text.*` and `clip_text.*`."""
        tensors = {}
        for name in ("frames", "held_out_frames", "windows"):
            part: LatentSet = getattr(self, name)
            tensors[f"{name}.latents"], tensors[f"{name}.prompt"] = part.latents, part.prompt
            if part.mask is not None:
                tensors[f"{name}.mask"] = part.mask
        if self.empty_frames:
            tensors["empty_frames"] = torch.tensor(self.empty_frames)
        save_tensors(folder / "latents.safetensors", tensors)
        save_text(self.frame_text, folder, "frame_text")
        save_text(self.clip_text, folder, "clip_text")

    @staticmethod
    def load(folder: Path) -> TrainingData:
        """Reads what :meth:`save` wrote."""
        tensors = _read(folder / "latents.safetensors")
        frames, held_out, windows = (
            LatentSet(tensors[f"{name}.latents"], tensors[f"{name}.prompt"], tensors.get(f"{name}.mask"))
            for name in ("frames", "held_out_frames", "windows")
        )
        empty = tensors.get("empty_frames", torch.zeros(0, 2, dtype=torch.long)).tolist()
        return TrainingData(
            frames=frames,
            held_out_frames=held_out,
            windows=windows,
            frame_text=load_text(folder, "frame_text"),
            clip_text=load_text(folder, "clip_text"),
            empty_frames=tuple((source, frame) for source, frame in empty),
        )


@dataclass(frozen=True)
class PriorData:
    """The prior-preservation set: the base's own clips and their frames, with their prompts."""

    frames: LatentSet
    clips: LatentSet
    text: TextBank

    def save(self, folder: Path) -> None:
        """Writes `prior.safetensors` and `text.*`."""
        save_tensors(
            folder / "prior.safetensors",
            {
                "frames.latents": self.frames.latents,
                "frames.prompt": self.frames.prompt,
                "clips.latents": self.clips.latents,
                "clips.prompt": self.clips.prompt,
            },
        )
        save_text(self.text, folder, "text")

    @staticmethod
    def load(folder: Path) -> PriorData:
        """Reads what :meth:`save` wrote."""
        tensors = _read(folder / "prior.safetensors")
        frames = LatentSet(tensors["frames.latents"], tensors["frames.prompt"])
        clips = LatentSet(tensors["clips.latents"], tensors["clips.prompt"])
        return PriorData(frames, clips, load_text(folder, "text"))


def sentinels(base: BaseModel, words: Iterable[str]) -> dict[str, str]:
    """What stands in prompts for each of some :data:`LEARNED_WORDS`."""
    return {word: base.sentinel(LEARNED_WORDS.index(word)) for word in words}


def empty_set(like: Tensor) -> LatentSet:
    """A set of no latents, of the shape of `like` (n, c, t, h, w) otherwise."""
    return LatentSet(like[:0].clone(), torch.zeros(0, dtype=torch.long))


def save_text(bank: TextBank, folder: Path, name: str) -> None:
    """Writes a bank as `NAME.safetensors` and `NAME.json`."""
    save_tensors(folder / f"{name}.safetensors", bank.conditioning.tensors)
    facts = {
        "prompts": bank.prompts,
        "variants": bank.variants,
        "learned": bank.learned,
        "token_counts": bank.token_counts,
        "row_rms": bank.row_rms,
    }
    (folder / f"{name}.json").write_text(json.dumps(facts, indent=1, sort_keys=True))


def load_text(folder: Path, name: str) -> TextBank:
    """Reads what :func:`save_text` wrote."""
    facts = json.loads((folder / f"{name}.json").read_text())
    learned = {word: tuple(tuple(row) for row in rows) for word, rows in facts["learned"].items()}
    conditioning = Conditioning(_read(folder / f"{name}.safetensors"))
    return TextBank(
        prompts=tuple(facts["prompts"]),
        variants=facts["variants"],
        conditioning=conditioning,
        learned=learned,
        token_counts=tuple(facts["token_counts"]),
        row_rms=facts["row_rms"],
    )


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; encode again")
    return load_file(path)
