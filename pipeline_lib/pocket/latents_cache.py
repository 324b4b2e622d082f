"""Latents of training clips: encoded once, read by the base's recipe."""

from __future__ import annotations

import hashlib
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


def autoencoder_digest(vae: AutoencoderKLWan) -> str:
    """What an autoencoder's latents depend on, as one text.

    Args:
        vae: the pocket autoencoder, its weights in float32.

    Returns:
        SHA-256 of the encoder and of the latents' statistics; a decoder trained anew leaves it as it is.
    """
    told = hashlib.sha256(json.dumps([list(vae.config.latents_mean), list(vae.config.latents_std)]).encode())
    for name, value in sorted(vae.state_dict().items()):
        if name.startswith(("encoder.", "quant_conv.")):
            told.update(f"{name} {tuple(value.shape)}".encode())
            told.update(value.contiguous().numpy().tobytes())
    return told.hexdigest()


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
    digest = autoencoder_digest(vae)
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
            autoencoder=digest,
        )
        temporary.replace(_path(folder, number))


def read_latents(folder: Path, number: int, autoencoder: str, mix: SceneMix = BASE_MIX) -> LatentShard:
    """Read one shard of latents.

    Args:
        folder: where latents are.
        number: which shard.
        autoencoder: of :func:`autoencoder_digest`; a shard that does not tell its own is taken, since encoding a cache
            again costs more than the doubt.
        mix: shares of the draw.

    Returns:
        The shard.

    Raises:
        InputError: it was drawn from another mix of scenes, or encoded by another autoencoder.
    """
    with np.load(_path(folder, number)) as record:
        name, fix = _path(folder, number).name, f"delete {folder}, or use another --work folder"
        if "mix" not in record or str(record["mix"]) != _told(mix):
            raise InputError("latents of another mix of scenes", got=name, fix=fix)
        if "autoencoder" in record and str(record["autoencoder"]) != autoencoder:
            raise InputError("latents of another autoencoder than the base's", got=name, fix=fix)
        return LatentShard(
            latents=torch.from_numpy(record["latents"]),
            occupancy=torch.from_numpy(record["occupancy"]),
            scenes=tuple(Scene.from_json(str(text)) for text in record["scenes"]),
        )


def latents_present(folder: Path) -> list[int]:
    """Numbers of the shards that are encoded."""
    return sorted(int(path.stem.split("_")[1]) for path in folder.glob("latents_*.npz"))
