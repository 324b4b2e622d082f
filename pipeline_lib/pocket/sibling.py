"""Recipe of the pocket base's sibling: the same base, tuned to the world's second look.

A sibling shares the parent's text encoder and autoencoder, so that what was learned on one (a learned word above all)
can be put on the other. It is kept as a LoRA on the parent, of 1.3 MB, merged when the base is loaded. The file's
header tells the digest of the parent that it was trained on: it goes on another one of the same shape too, but what it
draws there was not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline_lib.errors import InputError
from pipeline_lib.flow_matching import interpolate, stratified_sigma, velocity_target
from pipeline_lib.models.adapter import Adapter, AdapterSettings
from pipeline_lib.models.folder import PipelineFolder
from pipeline_lib.models.lora_export import write_lora
from pipeline_lib.models.wan_spec import LORA_TARGETS
from pipeline_lib.pocket.base_data import Batch, LatentSource
from pipeline_lib.pocket.base_network import TextToVideo
from pipeline_lib.pocket.latents_cache import BASE_MIX
from pipeline_lib.pocket.pieces import Piece, learning_rate_factor
from pipeline_lib.pocket.world_settings import FLOW_SHIFT, TRAINING_SEED
from pipeline_lib.seeding import generator

OUTLINE_MIX = replace(BASE_MIX, look="outline")
"""The scenes of the base, drawn in the second look; the captions say nothing of it."""
FIRST_SHARD = 100
"""Shards from here on show scenes that the parent has not seen."""
LORA_NAME = "lora.safetensors"


@dataclass(frozen=True, kw_only=True)
class SiblingSettings:
    """How the sibling is trained.

    Attributes:
        steps: optimizer steps in all.
        shards: of 256 clips.
        rank: of the LoRA.
        clip_batch: clips in three steps of four.
        image_clips: single frames in the fourth, each of a clip of its own.
        rate: peak learning rate (AdamW).
        subject_weight: weight of subject cells over background cells.
    """

    steps: int = 600
    shards: int = 6
    rank: int = 8
    clip_batch: int = 8
    image_clips: int = 48
    rate: float = 2e-3
    subject_weight: float = 2.0


class SiblingTrainer:
    """Live state of the sibling's training.

    Args:
        piece: checkpoints and deadline.
        source: batches of the second look.
        settings: the recipe.
        parent: folder of the base.
    """

    def __init__(self, piece: Piece, source: LatentSource, settings: SiblingSettings, parent: Path) -> None:
        self.piece, self.source, self.settings = piece, source, settings
        self.model = TextToVideo(len(source.tokenizer))
        self.parent_digest = PipelineFolder(parent).digest()
        self.model.start_from(parent)
        self.model.ignore_padding()
        self.model.requires_grad_(False)
        wanted = AdapterSettings(rank=settings.rank, targets=LORA_TARGETS)
        self.adapter = Adapter.attach([self.model.transformer], wanted, TRAINING_SEED)
        self.learning = [
            *self.adapter.factors("basis").values(),
            *self.adapter.factors("coefficients").values(),
        ]
        self.optimizer = torch.optim.AdamW(self.learning, lr=settings.rate, betas=(0.9, 0.98), weight_decay=0.01)
        self.step = 0
        if state := piece.load():
            self._restore(state)

    @torch.no_grad()
    def _restore(self, state: Mapping[str, Any]) -> None:
        if state.get("parent", self.parent_digest) != self.parent_digest:
            raise InputError(
                "the sibling's checkpoint is of another base",
                got=str(self.piece.folder),
                fix="use another --work folder, or delete its outline.pt",
            )
        for value, saved in zip(self.learning, state["learning"], strict=True):
            value.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])

    def save(self, target: Path) -> None:
        """Write the checkpoint and the LoRA.

        Args:
            target: folder of the sibling.
        """
        learning: list[Tensor] = [value.detach() for value in self.learning]
        state = {"learning": learning, "optimizer": self.optimizer.state_dict(), "step": self.step}
        self.piece.save({**state, "parent": self.parent_digest})
        target.mkdir(parents=True, exist_ok=True)
        facts = {
            "method": "sibling",
            "base": "pocket",
            "base_digest": self.parent_digest,
            "look": OUTLINE_MIX.look,
            "steps": self.step,
        }
        write_lora(self.adapter.triple(), target / LORA_NAME, family="wan", provenance=facts)

    def _batch(self) -> Batch:
        settings = self.settings
        if self.step % 4 == 3:
            return self.source.batch(self.step, settings.image_clips, frames=1)
        return self.source.batch(self.step, settings.clip_batch)

    def advance(self) -> float:
        """Take one optimizer step; returns the velocity loss."""
        settings, batch = self.settings, self._batch()
        draw = generator(TRAINING_SEED, "sibling", self.step)
        noise = torch.randn(batch.latents.shape, generator=draw)
        sigma = stratified_sigma(draw, len(noise), FLOW_SHIFT)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                embeddings = self.model.embed(batch.tokens, batch.mask)
            predicted = self.model(interpolate(batch.latents, noise, sigma), sigma, embeddings, batch.mask)
        error = (predicted.float() - velocity_target(batch.latents, noise)).square()
        weight = 1.0 + (settings.subject_weight - 1.0) * batch.occupancy
        loss = (error * weight).sum() / (weight.sum() * error.shape[1])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.learning, 1.0)
        self.optimizer.param_groups[0]["lr"] = settings.rate * learning_rate_factor(self.step, settings.steps)
        self.optimizer.step()
        self.step += 1
        return loss.item()


def train(trainer: SiblingTrainer, target: Path) -> int:
    """Train one piece; the checkpoint and the LoRA are kept up to date.

    Args:
        trainer: the live state.
        target: folder of the sibling.

    Returns:
        Steps done in all.
    """
    told: list[float] = []
    while trainer.step < trainer.settings.steps and not trainer.piece.over:
        told.append(trainer.advance())
        if trainer.step % 50 == 0:
            trainer.piece.log({"step": trainer.step, "loss": sum(told) / len(told)})
            told.clear()
        if trainer.piece.due:
            trainer.save(target)
    trainer.save(target)
    return trainer.step
