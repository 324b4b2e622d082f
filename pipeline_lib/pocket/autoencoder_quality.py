"""What an autoencoder keeps of held-out frames, and the statistics of its latents."""

from __future__ import annotations

import math

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from pipeline_lib.pocket import clip_cache
from pipeline_lib.pocket.framewise import as_pictures, to_picture_batch
from pipeline_lib.pocket.world_settings import HELD_OUT_SEED


@torch.no_grad()
def peak_signal_to_noise(vae: AutoencoderKLWan, frames: Tensor) -> float:
    """PSNR of reconstructed frames in dB, mean over frames.

    Args:
        vae: the autoencoder.
        frames: uint8, shape (N, H, W, 3).

    Returns:
        Decibels; pixels range over [0, 1].
    """
    pictures = to_picture_batch(frames)
    with as_pictures():
        decoded = vae.decode(vae.encode(pictures).latent_dist.mode()).sample.clamp(-1, 1)
    errors = ((decoded - pictures) / 2.0).square().mean(dim=(1, 2, 3, 4))
    return float((-10.0 * errors.log10()).mean())


def held_out_frames(count: int = 64) -> Tensor:
    """Frames of held-out scenes, every fourth one of each clip, uint8 (N, H, W, 3)."""
    shard = clip_cache.render_shard(0, seed=HELD_OUT_SEED, count=math.ceil(count / 4))
    return torch.from_numpy(shard.frames[:, ::4].reshape(-1, *shard.frames.shape[2:])[:count])


@torch.no_grad()
def measure_latents(vae: AutoencoderKLWan, frames: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the latents per channel (the deviation, not its inverse).

    Args:
        vae: the autoencoder.
        frames: uint8, shape (N, H, W, 3).

    Returns:
        ``latents_mean`` and ``latents_std`` for the autoencoder's config.
    """
    with as_pictures():
        latents = vae.encode(to_picture_batch(frames)).latent_dist.mode()
    means = latents.mean(dim=(0, 2, 3, 4)).tolist()
    return means, latents.std(dim=(0, 2, 3, 4)).tolist()
