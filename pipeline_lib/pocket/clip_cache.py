"""Rendered training clips on disk, in shards that any recipe can read while more are written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline_lib.pocket.world_settings import TRAINING_SEED
from pipeline_lib.world.render import render
from pipeline_lib.world.sampling import SceneMix, sample_scene
from pipeline_lib.world.scene import Scene

SHARD_CLIPS = 256


@dataclass(frozen=True)
class Shard:
    """One shard of rendered clips.

    Attributes:
        frames: shape (N, T, H, W, 3), uint8.
        masks: union of the subjects' masks, shape (N, T, H, W), bool.
        scenes: the N scene records.
    """

    frames: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.bool_]
    scenes: tuple[Scene, ...]


def shard_path(folder: Path, number: int) -> Path:
    """Where shard ``number`` lies."""
    return folder / f"clips_{number:05d}.npz"


def render_shard(
    number: int, seed: int = TRAINING_SEED, count: int = SHARD_CLIPS, mix: SceneMix | None = None
) -> Shard:
    """Render scenes ``number * count … (number + 1) * count - 1``.

    Args:
        number: which shard.
        seed: seed of the scenes.
        count: clips in the shard.
        mix: shares of the draw; the training mix when None.

    Returns:
        The shard.
    """
    scenes = tuple(sample_scene(seed, number * count + index, mix) for index in range(count))
    clips = [render(scene) for scene in scenes]
    return Shard(
        frames=np.stack([clip.frames for clip in clips]),
        masks=np.stack([clip.subject_mask for clip in clips]),
        scenes=scenes,
    )


def write_shards(folder: Path, first: int, count: int) -> None:
    """Render shards that are not there yet.

    Args:
        folder: where they go.
        first: first shard number.
        count: how many.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        target = shard_path(folder, number)
        if target.exists():
            continue
        shard = render_shard(number)
        temporary = target.with_suffix(".partial.npz")
        np.savez(
            temporary,
            frames=shard.frames,
            masks=np.packbits(shard.masks, axis=-1),
            scenes=np.array([scene.to_json() for scene in shard.scenes]),
        )
        temporary.replace(target)


def read_shard(folder: Path, number: int) -> Shard:
    """Read one shard back.

    Args:
        folder: where the shards lie.
        number: which shard.

    Returns:
        The shard.
    """
    with np.load(shard_path(folder, number)) as record:
        return Shard(
            frames=record["frames"],
            masks=np.unpackbits(record["masks"], axis=-1).astype(bool),
            scenes=tuple(Scene.from_json(str(text)) for text in record["scenes"]),
        )


def shards_present(folder: Path) -> list[int]:
    """Numbers of the shards that are complete."""
    return sorted(int(path.stem.split("_")[1]) for path in folder.glob("clips_*.npz") if "partial" not in path.name)
