"""Recipe of the pocket base: images first, then clips, the text encoder trained along."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import torch
from diffusers import AutoencoderKLWan, WanPipeline
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from pipeline_lib.errors import InputError
from pipeline_lib.flow_matching import interpolate, stratified_sigma, velocity_target
from pipeline_lib.models.folder import BaseCard
from pipeline_lib.pocket.base_data import Batch, LatentSource
from pipeline_lib.pocket.base_models import (
    build_scheduler,
    build_transformer,
)
from pipeline_lib.pocket.base_network import TextToVideo
from pipeline_lib.pocket.orthogonal import Orthogonal
from pipeline_lib.pocket.pieces import Average, Piece, learning_rate_factor
from pipeline_lib.pocket.publishing import publish_model
from pipeline_lib.pocket.ranks import Ranks
from pipeline_lib.pocket.world_settings import CLIP_FRAMES, FLOW_SHIFT, FPS, GUIDANCE_SCALE, SIZE, TRAINING_SEED
from pipeline_lib.seeding import generator

Kind = Literal["image", "clip"]
"""Single frames or whole clips."""

BASE_CARD = BaseCard(
    height=SIZE,
    width=SIZE,
    num_frames=CLIP_FRAMES,
    frames_per_second=FPS,
    sigma_shift=FLOW_SHIFT,
    guidance_scale=GUIDANCE_SCALE,
    sampling_steps=20,
    licence="Apache-2.0",
)


@dataclass(frozen=True, kw_only=True)
class BaseSettings:
    """How the base is trained.

    Attributes:
        steps: optimizer steps in all.
        image_steps: steps at the start on single frames only.
        image_clips: clips per image step.
        image_frames: single frames of each of them.
        clip_batch: clips per step on whole clips.
        cycle: after the start, the kinds of steps in turn.
        matrix_rate: peak learning rate of matrices in blocks (Muon, scaled to AdamW's size).
        other_rate: peak learning rate of everything else (AdamW).
        subject_weight: weight of subject cells over background cells.
        decay: share of the steps in which the rates fall to nothing.
        average: decay of the weights' moving average.
        words_weight: weight of the words that the text encoder is asked for.
        places_weight: weight of the frames and poses that the transformer is asked for.
        cells_weight: weight of what it is asked about cells.
        early_share: share of a step's samples whose sigma is drawn evenly from the first moments of sampling.
        early_sigma: where those moments end.
        padding_weight: weight of the share of attention that goes to padding.
        padding_steps: how long it is watched.
    """

    steps: int = 50_000
    image_steps: int = 700
    image_clips: int = 96
    image_frames: int = 1
    clip_batch: int = 16
    cycle: tuple[Kind, ...] = ("clip", "clip", "clip", "image")
    matrix_rate: float = 1e-3
    other_rate: float = 7e-4
    subject_weight: float = 4.0
    decay: float = 0.6
    average: float = 0.998
    words_weight: float = 0.1
    places_weight: float = 0.1
    cells_weight: float = 0.1
    early_share: float = 0.25
    early_sigma: float = 0.85
    padding_weight: float = 0.03
    padding_steps: int = 600


@dataclass(frozen=True)
class Losses:
    """What a step is trained on, all scalars.

    Attributes:
        velocity: flow matching, heavier on subjects.
        words: what the text encoder makes of the caption's words.
        frames: which frame of its clip a token takes itself for; None where frames stand alone.
        poses: where a frame's tokens see its subjects.
        cells: where on a subject's body the cells of a token lie.
        names: what a token calls the subject that it shows.
    """

    velocity: Tensor
    words: Tensor
    frames: Tensor | None
    poses: Tensor
    cells: Tensor
    names: Tensor


def draw_sigma(source: torch.Generator, count: int, settings: BaseSettings) -> Tensor:
    """Sigmas of a step: those that a base is tuned with, and more of the first moments of sampling.

    Where a subject goes is settled while hardly anything of it can be seen, which the base's own distribution visits
    too seldom to teach it.

    Args:
        source: of the draw.
        count: how many.
        settings: shares.

    Returns:
        Shape (count,), float32.
    """
    early = round(settings.early_share * count)
    parts = (torch.arange(early) + torch.rand(early, generator=source)) / max(1, early)
    return torch.cat([1.0 - (1.0 - settings.early_sigma) * parts, stratified_sigma(source, count - early, FLOW_SHIFT)])


def losses(model: TextToVideo, batch: Batch, seed: int, settings: BaseSettings) -> Losses:
    """Forward pass of one step.

    Args:
        model: what is trained.
        batch: clean latents, text and truth.
        seed: the step, which is the counter of noise and sigma.
        settings: weights.

    Returns:
        Losses, each without its weight.
    """
    source = generator(TRAINING_SEED, "base", seed)
    noise = torch.randn(batch.latents.shape, generator=source)
    sigma = draw_sigma(source, batch.latents.shape[0], settings)
    noisy = interpolate(batch.latents, noise, sigma)
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = model.embed(batch.tokens, batch.mask)
        predicted = model(noisy, sigma, embeddings, batch.mask)
        words = model.heads(embeddings, batch.mask, batch.words)
    error = (predicted.float() - velocity_target(batch.latents, noise)).square()
    weight = 1.0 + (settings.subject_weight - 1.0) * batch.occupancy
    velocity = (error * weight).sum() / (weight.sum() * error.shape[1])
    asked = batch.words.repeat_interleave(len(noisy) // len(batch.words), dim=0)
    return Losses(velocity, words, *model.places(batch.poses), *model.cells(batch.poses, batch.occupancy, asked))


def build_optimizers(
    model: TextToVideo, settings: BaseSettings, ranks: Ranks | None = None
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside blocks, AdamW for the rest.

    Args:
        model: what is trained.
        settings: rates.
        ranks: processes that share Muon's work.

    Returns:
        The two optimizers.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, value in model.named_parameters():
        inside = "blocks." in name or "encoder.block." in name
        matrix = inside and value.ndim == 2 and "relative_attention_bias" not in name
        (matrices if matrix else others).append(value)
    return [
        Orthogonal(matrices, lr=settings.matrix_rate, weight_decay=0.02, ranks=ranks),
        torch.optim.AdamW(others, lr=settings.other_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def publish(values: Mapping[str, Tensor], tokenizer: PreTrainedTokenizerFast, target: Path) -> WanPipeline:
    """Write the base as a ``WanPipeline`` folder; the autoencoder there is kept.

    Args:
        values: averaged parameters of :class:`TextToVideo`.
        tokenizer: the pocket tokenizer.
        target: the base's folder, which holds ``vae`` already.

    Returns:
        The pipeline, in fp32.
    """
    model = TextToVideo(len(tokenizer))
    model.load_state_dict(dict(values), strict=False)
    transformer = build_transformer()
    transformer.load_state_dict(model.transformer.state_dict())
    vae = AutoencoderKLWan.from_pretrained(target / "vae", torch_dtype=torch.float32)
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=model.text_encoder,
        vae=vae,
        scheduler=build_scheduler(),
        transformer=transformer,
    )
    publish_model(pipeline, target, BASE_CARD)
    return pipeline


class BaseTrainer:
    """Live state of the base's training.

    Args:
        piece: checkpoints and deadline.
        source: batches.
        settings: the recipe.
        published: without a checkpoint, start from the weights of this base's folder.
    """

    def __init__(
        self,
        piece: Piece,
        source: LatentSource,
        settings: BaseSettings,
        published: Path | None = None,
    ) -> None:
        torch.manual_seed(TRAINING_SEED)
        self.piece, self.source, self.settings = piece, source, settings
        self.model = TextToVideo(len(source.tokenizer))
        if published:
            self.model.start_from(published)
        self.ranks = Ranks()
        self.optimizers = build_optimizers(self.model, settings, self.ranks)
        self.peaks = (settings.matrix_rate, settings.other_rate)
        self.average = Average(self.model, settings.average)
        self.step, self.over = 0, False
        self.watched: list[Tensor] | None = self.model.watch_padding()
        state = piece.load()
        if state:
            self._restore(state)

    def _restore(self, state: Mapping[str, Any]) -> None:
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise InputError(
                "the base's checkpoint is of another recipe",
                got=str(self.piece.folder),
                fix="use another --work folder; --go-on starts from the published weights",
            ) from error
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.average.load_state(state["average"])
        self.step = int(state["step"])

    def checkpoint(self) -> None:
        """Write everything that the next piece goes on from."""
        self.piece.save(
            {
                "model": self.model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "average": self.average.state(),
                "step": self.step,
            }
        )

    def save(self, target: Path) -> None:
        """Write the checkpoint and publish the averaged weights.

        Args:
            target: the base's folder.
        """
        if self.ranks.first:
            self.checkpoint()
            publish(self.average.values, self.source.tokenizer, target)

    def _kind(self) -> Kind:
        settings = self.settings
        if self.step < settings.image_steps:
            return "image"
        return settings.cycle[self.step % len(settings.cycle)]

    def _batch(self, kind: Kind, draw: int) -> Batch:
        settings, count = self.settings, self.ranks.count
        if kind == "image":
            return self.source.batch(draw, settings.image_clips // count, settings.image_frames)
        return self.source.batch(draw, settings.clip_batch // count)

    def _backward(self, batch: Batch, draw: int) -> dict[str, float]:
        settings = self.settings
        found = losses(self.model, batch, draw, settings)
        total = found.velocity + settings.words_weight * found.words
        total = total + settings.places_weight * found.poses + settings.cells_weight * (found.cells + found.names)
        told = {
            name: getattr(found, kept).item()
            for name, kept in (("loss", "velocity"), ("words",) * 2, ("poses",) * 2, ("cells",) * 2, ("names",) * 2)
        }
        if found.frames is not None:
            total, told["frames"] = total + settings.places_weight * found.frames, found.frames.item()
        if self.watched:
            padding = torch.stack(self.watched).mean()
            self.watched.clear()
            total, told["padding"] = total + settings.padding_weight * padding, padding.item()
        total.backward()
        return told

    def advance(self) -> tuple[Kind, dict[str, float]]:
        """Take one optimizer step.

        Returns:
            On what, and its losses.
        """
        if self.watched is not None and self.step >= self.settings.padding_steps:
            self.model.ignore_padding()
            self.watched = None
        kind = self._kind()
        factor = learning_rate_factor(self.step, self.settings.steps, decay=self.settings.decay)
        for optimizer, peak in zip(self.optimizers, self.peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * factor
            optimizer.zero_grad(set_to_none=True)
        draw, ranks = self.step * self.ranks.count + self.ranks.rank, self.ranks
        told = self._backward(self._batch(kind, draw), draw)
        self.over = ranks.average_gradients(list(self.model.parameters()), self.piece.over)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update(self.model)
        self.step += 1
        return kind, told


def train(trainer: BaseTrainer, target: Path) -> int:
    """Train one piece; checkpoints and the published folder are kept up to date.

    Args:
        trainer: the live state.
        target: the base's folder.

    Returns:
        Steps done in all.
    """
    told: dict[str, list[float]] = defaultdict(list)
    piece = trainer.piece
    while trainer.step < trainer.settings.steps and not trainer.over:
        if trainer.step % 100 == 0:
            trainer.source.refresh()
        kind, values = trainer.advance()
        for name, value in values.items():
            told[f"{kind}_loss" if name == "loss" else name].append(value)
        if trainer.step % 50 == 0 and trainer.ranks.first:
            piece.log({"step": trainer.step, **{name: mean(seen) for name, seen in told.items()}})
            told.clear()
        if piece.due:
            trainer.save(target)
    trainer.save(target)
    return trainer.step
