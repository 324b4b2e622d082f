"""Recipe of one judge: four networks one after the other, then the gallery, then the files."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline_lib.pocket import clip_cache
from pipeline_lib.pocket.judge.camera_training import CameraTrainer, camera_examples
from pipeline_lib.pocket.judge.crop_training import CropTrainer
from pipeline_lib.pocket.judge.decoded import write_decoded
from pipeline_lib.pocket.judge.frame_source import FrameSource
from pipeline_lib.pocket.judge.identity import build_gallery
from pipeline_lib.pocket.judge.judge import DESIGNS, Judge, JudgeName, JudgeNetworks, judge_path, save_networks
from pipeline_lib.pocket.judge.motion_reading import MotionTrainer
from pipeline_lib.pocket.judge.scene_training import SceneTrainer
from pipeline_lib.pocket.judge.training import Losses, NetworkSettings, train_network
from pipeline_lib.pocket.pieces import Piece
from pipeline_lib.pocket.zoo import zoo_folder


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """How a judge is trained.

    Attributes:
        scene_steps: steps of the scene network.
        crop_steps: steps of the crop network.
        motion_steps: steps of the motion network.
        camera_steps: steps of the camera network.
        shards: shards of the clip cache that are read.
        decoded_clips: clips per autoencoder that are read after its round trip.
        camera_clips: clips of each shard that the camera network learns from.
        tracks: tracks that the motion network learns from.
        distractors: pictures without a subject, per kind.
    """

    scene_steps: int = 4000
    crop_steps: int = 14_000
    motion_steps: int = 1500
    camera_steps: int = 1500
    shards: int = 16
    decoded_clips: int = 256
    camera_clips: int = 128
    tracks: int = 24_000
    distractors: int = 600


@dataclass(frozen=True)
class Workplace:
    """Where a training reads and writes.

    Attributes:
        work: checkpoints and caches; the clip cache is its ``clips``.
        autoencoders: folders of autoencoders whose round trip is trained on; the zoo's own when empty.
        clips: the clip cache.
    """

    work: Path
    autoencoders: tuple[Path, ...]
    clips: Path

    @property
    def decoded(self) -> Path:
        """Folder of decoded clips."""
        return self.work / "decoded"


class _Clock:
    """What is left of a piece, for several networks one after the other."""

    def __init__(self, folder: Path, minutes: float) -> None:
        self.folder, self.deadline = folder, time.monotonic() + 60.0 * minutes

    def piece(self, name: str) -> Piece:
        left = max(0.0, (self.deadline - time.monotonic()) / 60.0)
        piece = Piece(self.folder, name, left)
        piece.stop_on_terminate()
        return piece

    def end(self) -> None:
        """Give the networks that follow no more time: they only load what they have."""
        self.deadline = time.monotonic()


def _prepare(place: Workplace, settings: JudgeSettings) -> None:
    """Render the clip cache when there is none, and decode some of it."""
    if not clip_cache.shards_present(place.clips):
        clip_cache.write_shards(place.clips, 0, settings.shards)
    autoencoders = list(place.autoencoders) or [zoo_folder("base") / "vae"]
    write_decoded(place.clips, place.decoded, autoencoders, settings.decoded_clips)


def _camera_examples(place: Workplace, settings: JudgeSettings, name: JudgeName) -> tuple[Tensor, Tensor]:
    path = place.work / f"{name}_camera_examples.pt"
    if not path.exists():
        shards = clip_cache.shards_present(place.clips)[: settings.shards]
        seed = DESIGNS[name].seed
        examples = camera_examples(place.clips, place.decoded, seed, shards, settings.camera_clips)
        torch.save(list(examples), path)
    features, answers = torch.load(path, weights_only=True)
    return features, answers


def train(name: JudgeName, place: Workplace, settings: JudgeSettings, minutes: float) -> dict[str, int]:
    """Train one piece, and publish once no network is untrained.

    Args:
        name: which judge.
        place: where to read and write.
        settings: the recipe.
        minutes: length of the piece; publishing comes on top.

    Returns:
        Steps done per network.
    """
    place.work.mkdir(parents=True, exist_ok=True)
    _prepare(place, settings)
    design, clock = DESIGNS[name], _Clock(place.work, minutes)
    torch.manual_seed(design.seed)
    networks = JudgeNetworks(design)
    source = FrameSource(
        place.clips, place.decoded, design.seed, shards=settings.shards, distractor_count=settings.distractors
    )
    done: dict[str, int] = {}

    def run(part: str, network: nn.Module, losses: Callable[[int], Losses], steps: int) -> None:
        recipe = NetworkSettings(steps=steps, log_every=max(10, steps // 100))
        values, done[part] = train_network(network, losses, clock.piece(f"{name}_{part}"), recipe)
        network.load_state_dict(values)
        if done[part] < steps:
            clock.end()

    run("scene", networks.scene, SceneTrainer(networks.scene, source).losses, settings.scene_steps)
    crops = CropTrainer(networks.crop, source)
    run("crop", networks.crop, crops.losses, settings.crop_steps)
    motions = MotionTrainer(networks.motion, design.seed, pool=settings.tracks)
    run("motion", networks.motion, motions.losses, settings.motion_steps)
    cameras = CameraTrainer(networks.camera, *_camera_examples(place, settings, name), design.seed)
    run("camera", networks.camera, cameras.losses, settings.camera_steps)
    if all(done.values()):
        publish(networks, name)
    return done


def gallery_path(name: JudgeName) -> Path:
    """Where a judge's gallery lies in the zoo."""
    return judge_path(name).with_name(f"{name}_gallery.safetensors")


def publish(networks: JudgeNetworks, name: JudgeName) -> None:
    """Write weights and gallery into the zoo.

    Args:
        networks: trained.
        name: which judge.
    """
    save_networks(networks, judge_path(name), name)
    # The gallery is built with the rounded weights, which are the ones that will read samples.
    build_gallery(Judge.load(name).read).save(gallery_path(name))
