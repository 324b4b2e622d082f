"""Batches for the base: latents of clips or single frames with freshly worded captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from pipeline_lib.pocket.base_words import QUESTIONS, UNKNOWN, answers
from pipeline_lib.pocket.latents_cache import BASE_MIX, LatentShard, latents_present, read_latents
from pipeline_lib.pocket.tokenizer import finish_caption
from pipeline_lib.pocket.world_settings import TRAINING_SEED
from pipeline_lib.world.captions import CaptionStyle, caption
from pipeline_lib.world.sampling import SceneMix, scene_generator


@dataclass(frozen=True)
class Batch:
    """One training batch.

    Attributes:
        latents: normalised clean latents, shape (B, C, T, h, w), float32; frames of one clip are
            neighbours.
        occupancy: share of subject pixels, shape (B, 1, T, h, w), float32.
        tokens: token ids, one row per clip, shape (clips, L).
        mask: 1 for real tokens, shape (clips, L).
        words: what each caption is asked for, shape (clips, QUESTIONS); see ``base_words``.
        poses: of each frame's subjects, shape (B, T, 2, 6); see ``base_places``.
    """

    latents: Tensor
    occupancy: Tensor
    tokens: Tensor
    mask: Tensor
    words: Tensor
    poses: Tensor


class LatentSource:
    """Draws batches from the latents on disk, picking up shards as they appear.

    Args:
        folder: the latents cache.
        tokenizer: the pocket tokenizer.
        autoencoder: of the base, see :func:`~pipeline_lib.pocket.latents_cache.autoencoder_digest`.
        dropped: share of captions replaced by the empty prompt, for guidance.
        mix: what the scenes were drawn from.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: PreTrainedTokenizerFast,
        autoencoder: str,
        dropped: float = 0.1,
        mix: SceneMix = BASE_MIX,
    ) -> None:
        self.folder, self.tokenizer, self.autoencoder = folder, tokenizer, autoencoder
        self.dropped, self.mix = dropped, mix
        self.shards: dict[int, LatentShard] = {}

    def refresh(self) -> int:
        """Read shards that have appeared since.

        Returns:
            How many there are.

        Raises:
            InputError: one is of another mix of scenes, or of another autoencoder.
        """
        for number in latents_present(self.folder):
            if number not in self.shards:
                self.shards[number] = read_latents(self.folder, number, self.autoencoder, self.mix)
        return len(self.shards)

    def batch(self, step: int, size: int, frames: int = 0) -> Batch:
        """Batch of one step; a pure function of its arguments and the shards present.

        Args:
            step: counter of the draw.
            size: clips.
            frames: single frames per clip; 0: the whole clip.

        Returns:
            The batch.
        """
        rng = scene_generator(TRAINING_SEED, step, stream=11)
        numbers = sorted(self.shards)
        latents, occupancy, poses, captions, words = [], [], [], [], []
        for _ in range(size):
            shard = self.shards[numbers[int(rng.integers(len(numbers)))]]
            clip = int(rng.integers(len(shard.scenes)))
            picked = rng.permutation(shard.latents.shape[1])[:frames] if frames else [slice(None)]
            latents += [shard.latents[clip, moment] for moment in picked]
            occupancy += [shard.occupancy[clip, moment] for moment in picked]
            poses += [shard.poses[clip, moment] for moment in picked]
            said = self._caption(shard, clip, rng, frames > 0)
            captions.append(said)
            words.append(answers(shard.scenes[clip], frames > 0) if said else [UNKNOWN] * QUESTIONS)
        tokens = self.tokenizer(captions, padding=True, pad_to_multiple_of=16, return_tensors="pt")
        clean, share, where = torch.stack(latents).float(), torch.stack(occupancy).float(), torch.stack(poses)
        if frames:
            clean, share, where = clean[:, None], share[:, None], where[:, None]
        return Batch(
            latents=clean.transpose(1, 2).contiguous(),
            occupancy=share[:, None],
            tokens=tokens.input_ids,
            mask=tokens.attention_mask,
            words=torch.tensor(words),
            poses=where,
        )

    def _caption(self, shard: LatentShard, clip: int, rng: np.random.Generator, image: bool) -> str:
        if rng.random() < self.dropped:
            return ""
        text = caption(shard.scenes[clip], rng, CaptionStyle(image=image))
        return finish_caption(text, rng.random())
