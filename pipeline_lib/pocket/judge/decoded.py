"""Training clips after an autoencoder's round trip, so that the judge survives one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKLWan

from pipeline_lib.pocket import clip_cache
from pipeline_lib.pocket.framewise import as_pictures, to_picture_batch

Pixels = npt.NDArray[np.uint8]


def load_autoencoder(folder: Path) -> AutoencoderKLWan:
    """Load an autoencoder in fp32 for inference.

    Args:
        folder: an ``AutoencoderKLWan`` folder.

    Returns:
        The autoencoder.
    """
    return AutoencoderKLWan.from_pretrained(folder, torch_dtype=torch.float32).eval()


@torch.no_grad()
def round_trip(vae: AutoencoderKLWan, frames: Pixels) -> Pixels:
    """Encode and decode frames one by one.

    Args:
        vae: a framewise autoencoder.
        frames: RGB, shape (..., 64, 64, 3), uint8.

    Returns:
        The decoded frames, same shape and type.
    """
    flat = torch.from_numpy(frames.reshape(-1, *frames.shape[-3:]))
    decoded = []
    for part in flat.split(52):
        with as_pictures(), torch.autocast("cpu", torch.bfloat16):
            picture = vae.decode(vae.encode(to_picture_batch(part)).latent_dist.mode()).sample
        pixels = (picture.squeeze(2).float().clamp(-1, 1) + 1.0) * 127.5 + 0.5
        decoded.append(pixels.permute(0, 2, 3, 1).to(torch.uint8))
    return torch.cat(decoded).numpy().reshape(frames.shape)


def write_decoded(clips: Path, target: Path, autoencoders: list[Path], count: int) -> None:
    """Write round trips of ``count`` cached clips per autoencoder, each of another shard.

    Args:
        clips: the clip cache.
        target: folder of ``decoded_<shard>.npy``: (count, T, 64, 64, 3), uint8, the first clips of that shard.
        autoencoders: folders of autoencoders.
        count: clips per autoencoder.
    """
    target.mkdir(parents=True, exist_ok=True)
    for shard, folder in zip(clip_cache.shards_present(clips), autoencoders, strict=False):
        path = target / f"decoded_{shard:05d}.npy"
        if path.exists():
            continue
        frames = clip_cache.read_shard(clips, shard).frames[:count]
        temporary = path.with_suffix(".partial.npy")
        np.save(temporary, round_trip(load_autoencoder(folder), frames))
        temporary.replace(path)
