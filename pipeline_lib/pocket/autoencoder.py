"""Recipe of the pocket autoencoder: world frames and natural pictures, one frame at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from pipeline_lib.pocket import clip_cache
from pipeline_lib.pocket.autoencoder_quality import (
    held_out_frames,
    measure_latents,
    peak_signal_to_noise,
)
from pipeline_lib.pocket.framewise import (
    as_pictures,
    build_autoencoder,
    to_picture_batch,
    zero_past_taps,
)
from pipeline_lib.pocket.orthogonal import Orthogonal
from pipeline_lib.pocket.pictures import natural_picture
from pipeline_lib.pocket.pieces import Average, Piece, learning_rate_factor
from pipeline_lib.pocket.publishing import publish_model
from pipeline_lib.pocket.ranks import Ranks
from pipeline_lib.pocket.world_settings import TRAINING_SEED
from pipeline_lib.seeding import generator
from pipeline_lib.world.sampling import scene_generator


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings:
    """How the autoencoder is trained.

    Attributes:
        steps: optimizer steps in all.
        batch: pictures per step.
        peak_rate: peak learning rate.
        natural_share: share of natural pictures.
        subject_weight: weight of subject pixels over background pixels.
        latent_noise: standard deviation of noise added to latents, relative to theirs.
        divergence_weight: weight of the mean KL divergence.
        average: decay of the weights' moving average.
        decoder_only: keep the encoder, so that latents stay what a base was trained on.
    """

    steps: int = 5000
    batch: int = 20
    peak_rate: float = 1.5e-3
    natural_share: float = 0.2
    subject_weight: float = 3.5
    latent_noise: float = 0.04
    divergence_weight: float = 2e-4
    average: float = 0.99
    decoder_only: bool = False


class PictureSource:
    """Random world frames from the clip cache, mixed with natural pictures.

    Args:
        folder: the clip cache.
        settings: batch and shares.
    """

    def __init__(self, folder: Path, settings: AutoencoderSettings) -> None:
        self.folder, self.settings = folder, settings
        self.shards: dict[int, clip_cache.Shard] = {}
        self.natural: list[np.ndarray[Any, Any]] = []

    def refresh(self, limit: int = 16) -> None:
        """Read shards that have appeared since, up to a limit."""
        for number in clip_cache.shards_present(self.folder)[:limit]:
            if number not in self.shards:
                self.shards[number] = clip_cache.read_shard(self.folder, number)

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        """Pictures of one step.

        Args:
            step: counter of the draw.
            size: how many.

        Returns:
            One-frame clips (B, 3, 1, H, W) in [-1, 1], and pixel weights (B, 1, 1, H, W).
        """
        rng = scene_generator(TRAINING_SEED, step, stream=7)
        # A pool of natural pictures grows to 4096, then is reused: they are slow to make.
        if len(self.natural) < 4096:
            self.natural += [natural_picture(rng) for _ in range(8)]
        natural = round(self.settings.natural_share * size)
        picks = rng.integers(len(self.natural), size=natural)
        frames = [self.natural[int(pick)] for pick in picks]
        weights = [np.ones(frames[0].shape[:2], np.float32)] * natural
        numbers = sorted(self.shards)
        for _ in range(size - natural):
            shard = self.shards[numbers[int(rng.integers(len(numbers)))]]
            clip = int(rng.integers(shard.frames.shape[0]))
            frame = int(rng.integers(shard.frames.shape[1]))
            frames.append(shard.frames[clip, frame])
            extra = self.settings.subject_weight - 1.0
            weights.append(1.0 + extra * shard.masks[clip, frame].astype(np.float32))
        pictures = to_picture_batch(torch.from_numpy(np.stack(frames)))
        return pictures, torch.from_numpy(np.stack(weights))[:, None, None]


def reconstruction_loss(
    vae: AutoencoderKLWan,
    batch: tuple[Tensor, Tensor],
    latent_noise: Tensor,
    settings: AutoencoderSettings,
) -> Tensor:
    """Weighted L1 of pixels and of their gradients, plus the divergence.

    Args:
        vae: the autoencoder.
        batch: pictures and pixel weights.
        latent_noise: standard normal, shape of the latents.
        settings: weights.

    Returns:
        Scalar loss.
    """
    pictures, weights = batch
    with as_pictures(), torch.autocast("cpu", torch.bfloat16):
        with torch.set_grad_enabled(not settings.decoder_only):
            posterior = vae.encode(pictures).latent_dist
        latents = posterior.mean
        spread = latents.detach().float().std()
        noisy = latents + settings.latent_noise * spread * latent_noise
        decoded = vae.decode(noisy).sample.float()
    error = decoded - pictures
    pixels = (weights * error.abs()).sum() / weights.sum() / 3.0
    edges_x = (error[..., 1:] - error[..., :-1]).abs() * weights[..., 1:]
    edges_y = (error[..., 1:, :] - error[..., :-1, :]).abs() * weights[..., 1:, :]
    edges = (edges_x.sum() + edges_y.sum()) / weights.sum() / 6.0
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    divergence = 0.5 * (mean**2 + logvar.exp() - 1.0 - logvar).mean()
    return pixels + 0.5 * edges + settings.divergence_weight * divergence


def publish(vae: AutoencoderKLWan, target: Path, measure: bool = True) -> AutoencoderKLWan:
    """Write an autoencoder as ``<target>/vae``.

    Args:
        vae: with averaged weights; its past taps are set to zero.
        target: the base's folder.
        measure: measure the latents' statistics on training clips and put them into the config;
            otherwise the config stays, and with it the latents that a base was trained on.

    Returns:
        The same autoencoder.
    """
    zero_past_taps(vae)
    if measure:
        shard = clip_cache.render_shard(0, count=64)
        frames = torch.from_numpy(shard.frames[:, ::3].reshape(-1, *shard.frames.shape[2:]))
        means, deviations = measure_latents(vae, frames)
        vae.register_to_config(latents_mean=means, latents_std=deviations)
    publish_model(vae, target / "vae")
    return vae


def build_optimizers(vae: AutoencoderKLWan, settings: AutoencoderSettings) -> list[torch.optim.Optimizer]:
    """Muon for kernels, AdamW for gains and biases.

    Args:
        vae: what is trained.
        settings: rates.

    Returns:
        The two optimizers.
    """
    kept = ("encoder.", "quant_conv.") if settings.decoder_only else ()
    trained = [value for name, value in vae.named_parameters() if not name.startswith(kept)]
    kernels = [value for value in trained if value.ndim >= 4 and value.shape[1] > 1]
    others = [value for value in trained if value.ndim < 4 or value.shape[1] == 1]
    return [
        Orthogonal(kernels, lr=settings.peak_rate),
        torch.optim.AdamW(others, lr=settings.peak_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True),
    ]


class AutoencoderTrainer:
    """Live state of the autoencoder's training.

    Args:
        piece: checkpoints and deadline.
        source: training pictures.
        settings: the recipe.
        target: the base's folder; a decoder-only training starts from its autoencoder.
        go_on: without a checkpoint, start from the published autoencoder's weights.
    """

    def __init__(
        self,
        piece: Piece,
        source: PictureSource,
        settings: AutoencoderSettings,
        target: Path,
        go_on: bool = False,
    ) -> None:
        torch.manual_seed(TRAINING_SEED)
        self.piece, self.source, self.settings, self.target = piece, source, settings, target
        self.ranks, self.over = Ranks(), False
        self.vae, self.step, state = build_autoencoder(), 0, piece.load()
        if settings.decoder_only or go_on:
            self.published = AutoencoderKLWan.from_pretrained(target / "vae", torch_dtype=torch.float32)
            self.vae.load_state_dict(self.published.state_dict())
        self.optimizers = build_optimizers(self.vae, settings)
        self.average = Average(self.vae, settings.average)
        if state:
            self.vae.load_state_dict(state["model"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.average.load_state(state["average"])
            self.step = int(state["step"])

    def advance(self) -> float:
        """Take one optimizer step and return its loss."""
        factor = learning_rate_factor(self.step, self.settings.steps)
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = self.settings.peak_rate * factor
            optimizer.zero_grad(set_to_none=True)
        draw = self.step * self.ranks.count + self.ranks.rank
        noise_source = generator(TRAINING_SEED, "autoencoder", draw)
        batch = self.source.batch(draw, self.settings.batch // self.ranks.count)
        latent_noise = torch.randn(batch[0].shape[0], 16, 1, 8, 8, generator=noise_source)
        loss = reconstruction_loss(self.vae, batch, latent_noise, self.settings)
        loss.backward()
        self.over = self.ranks.average_gradients(list(self.vae.parameters()), self.piece.over)
        torch.nn.utils.clip_grad_norm_(self.vae.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update(self.vae)
        self.step += 1
        return loss.item()

    def averaged(self) -> AutoencoderKLWan:
        """The autoencoder with the averaged weights."""
        vae = build_autoencoder()
        vae.load_state_dict(self.average.values)
        if self.settings.decoder_only:
            config = self.published.config
            vae.register_to_config(latents_mean=config.latents_mean, latents_std=config.latents_std)
        return vae.eval()

    def checkpoint(self) -> None:
        """Write everything that the next piece goes on from."""
        self.piece.save(
            {
                "model": self.vae.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "average": self.average.state(),
                "step": self.step,
            }
        )


def train(trainer: AutoencoderTrainer) -> float:
    """Train one piece and publish the averaged weights.

    Args:
        trainer: the live state.

    Returns:
        PSNR on held-out world frames in dB.
    """
    piece, examined = trainer.piece, held_out_frames()
    while trainer.step < trainer.settings.steps and not trainer.over:
        if trainer.step % 100 == 0 or not trainer.source.shards:
            trainer.source.refresh()
        loss = trainer.advance()
        if not trainer.ranks.first:
            continue
        if trainer.step % 50 == 0:
            piece.log({"step": trainer.step, "loss": loss})
        if trainer.step % 250 == 0:
            quality = peak_signal_to_noise(trainer.averaged(), examined)
            piece.log({"step": trainer.step, "psnr": quality})
        if piece.due:
            trainer.checkpoint()
    if not trainer.ranks.first:
        return peak_signal_to_noise(trainer.averaged(), examined)
    trainer.checkpoint()
    return peak_signal_to_noise(
        publish(trainer.averaged(), trainer.target, not trainer.settings.decoder_only), examined
    )
