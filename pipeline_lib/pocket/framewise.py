"""An ``AutoencoderKLWan`` that treats every frame alone.

Every causal temporal convolution keeps its newest tap only; all taps on the past are zero. A
clip's latents are then exactly its frames' one-frame latents, so images train the autoencoder,
and what a base learns from images holds for every frame of a video.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import Tensor, nn
from torch.nn import functional


def _causal_convolutions(module: nn.Module) -> Iterator[nn.Conv3d]:
    for child in module.modules():
        if isinstance(child, WanCausalConv3d):
            yield child


@torch.no_grad()
def zero_past_taps(vae: nn.Module) -> None:
    """Set every temporal tap but the newest to zero, in place.

    Args:
        vae: an ``AutoencoderKLWan``.
    """
    for convolution in _causal_convolutions(vae):
        convolution.weight[:, :, :-1] = 0.0


def build_autoencoder() -> AutoencoderKLWan:
    """A fresh pocket autoencoder: 64×64 RGB to 16 × 8 × 8 per frame, no temporal mixing."""
    vae = AutoencoderKLWan(
        base_dim=64,
        z_dim=16,
        dim_mult=[1, 2],
        num_res_blocks=2,
        attn_scales=[],
        temperal_downsample=[False],
        patch_size=4,
        in_channels=48,
        out_channels=48,
        scale_factor_temporal=1,
        scale_factor_spatial=8,
    )
    with torch.no_grad():
        for convolution in _causal_convolutions(vae):
            # The initial spread counts the past taps, which are then dropped: make up for them.
            convolution.weight[:, :, -1] *= convolution.weight.shape[2] ** 0.5
    zero_past_taps(vae)
    return vae


def _newest_tap_forward(self: WanCausalConv3d, x: Tensor, _cache: Tensor | None = None) -> Tensor:
    # (B, C, 1, H, W) as a picture: a third of the work, and channels-last is fast on a CPU.
    height, width = self._padding[2], self._padding[0]
    picture = functional.conv2d(x.squeeze(2), self.weight[:, :, -1], self.bias, self.stride[1:], (height, width))
    return picture.unsqueeze(2)


@contextmanager
def as_pictures() -> Iterator[None]:
    """Within this context, causal convolutions run as 2-D ones on one-frame clips.

    Exact when the past taps are zero, and gradients reach the newest taps only.
    """
    stock = WanCausalConv3d.forward
    WanCausalConv3d.forward = _newest_tap_forward
    try:
        yield
    finally:
        WanCausalConv3d.forward = stock


def to_picture_batch(frames: Tensor) -> Tensor:
    """Turn uint8 frames (N, H, W, 3) into one-frame clips (N, 3, 1, H, W) in [-1, 1]."""
    # Permuting keeps the memory channels-last.
    return (frames.float() / 127.5 - 1.0).permute(0, 3, 1, 2).unsqueeze(2)


@torch.no_grad()
def encode_frames(vae: AutoencoderKLWan, frames: Tensor) -> Tensor:
    """Encode frames one by one: normalised latents of a base.

    Args:
        vae: the pocket autoencoder, past taps zero.
        frames: uint8, shape (N, H, W, 3).

    Returns:
        Normalised latents, shape (N, C, h, w), float32.
    """
    with as_pictures(), torch.autocast("cpu", torch.bfloat16):
        latents = vae.encode(to_picture_batch(frames)).latent_dist.mode()
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1)
    return (latents.squeeze(2).float() - mean) / std
