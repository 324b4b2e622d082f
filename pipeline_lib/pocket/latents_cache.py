"""Latents of training clips: encoded once, read by the base's recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor
from torch.nn import functional

from pipeline_lib.pocket import clip_cache
from pipeline_lib.pocket.framewise import encode_frames
from pipeline_lib.world.scene import Scene


@dataclass(frozen=True)
class LatentShard:
    """Latents of one shard.

    Attributes:
        latents: normalised, shape (N, T, C, h, w), float16.
        occupancy: share of subject pixels per latent cell, shape (N, T, h, w), float16.
        scenes: the N scene records.
    """

    latents: Tensor
    occupancy: Tensor
    scenes: tuple[Scene, ...]


def encode_shard(vae: AutoencoderKLWan, shard: clip_cache.Shard, batch: int = 208) -> LatentShard:
    """Encode a shard's clips frame by frame.

    Args:
        vae: the pocket autoencoder.
        shard: rendered clips.
        batch: frames at a time.

    Returns:
        Latents and occupancy.
    """
    count, length = shard.frames.shape[:2]
    frames = torch.from_numpy(shard.frames).flatten(0, 1)
    latents = torch.cat([encode_frames(vae, part).half() for part in frames.split(batch)])
    masks = torch.from_numpy(shard.masks).flatten(0, 1).float()
    occupancy = functional.avg_pool2d(masks[:, None], 8)[:, 0]
    return LatentShard(
        latents=latents.unflatten(0, (count, length)),
        occupancy=occupancy.half().unflatten(0, (count, length)),
        scenes=shard.scenes,
    )


def _path(folder: Path, number: int) -> Path:
    return folder / f"latents_{number:05d}.npz"


def write_latents(vae: AutoencoderKLWan, clips: Path, folder: Path, numbers: list[int]) -> None:
    """Encode shards that are not encoded yet.

    Args:
        vae: the pocket autoencoder.
        clips: the clip cache; missing shards are rendered on the fly.
        folder: where latents go.
        numbers: which shards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        if _path(folder, number).exists():
            continue
        present = clip_cache.shard_path(clips, number).exists()
        shard = clip_cache.read_shard(clips, number) if present else clip_cache.render_shard(number)
        encoded = encode_shard(vae, shard)
        temporary = folder / f"partial_{number:05d}.npz"
        np.savez(
            temporary,
            latents=encoded.latents.numpy(),
            occupancy=encoded.occupancy.numpy(),
            scenes=np.array([scene.to_json() for scene in encoded.scenes]),
        )
        temporary.replace(_path(folder, number))


def read_latents(folder: Path, number: int) -> LatentShard:
    """Read one shard of latents."""
    with np.load(_path(folder, number)) as record:
        return LatentShard(
            latents=torch.from_numpy(record["latents"]),
            occupancy=torch.from_numpy(record["occupancy"]),
            scenes=tuple(Scene.from_json(str(text)) for text in record["scenes"]),
        )


def latents_present(folder: Path) -> list[int]:
    """Numbers of the shards that are encoded."""
    return sorted(int(path.stem.split("_")[1]) for path in folder.glob("latents_*.npz"))
