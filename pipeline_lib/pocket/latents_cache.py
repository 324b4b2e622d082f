"""Latents of training clips: encoded once, read by the base's recipe."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor
from torch.nn import functional

from pipeline_lib.errors import InputError
from pipeline_lib.pocket import clip_cache
from pipeline_lib.pocket.base_places import subject_poses
from pipeline_lib.pocket.framewise import encode_frames
from pipeline_lib.world.sampling import SceneMix
from pipeline_lib.world.scene import Scene

BASE_MIX = SceneMix(two_share=0.4, creature_share=0.5, free_motion_share=0.3)
"""Scenes of the base: more pairs and more named motions than what the other parts learn from.

In their mix 3.6 % of the scenes are pairs of plain shapes, and a base trained on it gave 0 to 3 % of the pairs their
shapes and colours.
"""


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

    @cached_property
    def poses(self) -> Tensor:
        """Of :func:`~pipeline_lib.pocket.base_places.subject_poses`, shape (N, T, 2, 6)."""
        return torch.from_numpy(np.stack([subject_poses(scene) for scene in self.scenes]))


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


def _told(mix: SceneMix) -> str:
    return json.dumps(asdict(mix))


def write_latents(vae: AutoencoderKLWan, folder: Path, numbers: list[int], mix: SceneMix = BASE_MIX) -> None:
    """Render and encode shards that are not there yet.

    Args:
        vae: the pocket autoencoder.
        folder: where latents go.
        numbers: which shards.
        mix: shares of the draw.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        if _path(folder, number).exists():
            continue
        encoded = encode_shard(vae, clip_cache.render_shard(number, mix=mix))
        temporary = folder / f"partial_{number:05d}.npz"
        np.savez(
            temporary,
            latents=encoded.latents.numpy(),
            occupancy=encoded.occupancy.numpy(),
            scenes=np.array([scene.to_json() for scene in encoded.scenes]),
            mix=_told(mix),
        )
        temporary.replace(_path(folder, number))


def read_latents(folder: Path, number: int, mix: SceneMix = BASE_MIX) -> LatentShard:
    """Read one shard of latents; InputError where it was drawn from another mix of scenes."""
    with np.load(_path(folder, number)) as record:
        if "mix" not in record or str(record["mix"]) != _told(mix):
            raise InputError("latents of another mix of scenes", got=_path(folder, number).name, fix=f"delete {folder}")
        return LatentShard(
            latents=torch.from_numpy(record["latents"]),
            occupancy=torch.from_numpy(record["occupancy"]),
            scenes=tuple(Scene.from_json(str(text)) for text in record["scenes"]),
        )


def latents_present(folder: Path) -> list[int]:
    """Numbers of the shards that are encoded."""
    return sorted(int(path.stem.split("_")[1]) for path in folder.glob("latents_*.npz"))
