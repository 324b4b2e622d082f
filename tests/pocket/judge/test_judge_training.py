"""The recipes: losses that fall, pieces that go on bit by bit, features that tell the camera."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline_lib.errors import NonFiniteError
from pipeline_lib.pocket import clip_cache
from pipeline_lib.pocket.judge.camera_reading import FEATURE_SIZE, CameraNetwork
from pipeline_lib.pocket.judge.camera_training import clip_features
from pipeline_lib.pocket.judge.crop_training import CropTrainer, jittered
from pipeline_lib.pocket.judge.frame_source import FrameSource
from pipeline_lib.pocket.judge.judge import DESIGNS, Judge, JudgeNetworks, save_networks
from pipeline_lib.pocket.judge.motion_reading import MotionNetwork, MotionTrainer, filled
from pipeline_lib.pocket.judge.networks import Architecture, CropNetwork, SceneNetwork
from pipeline_lib.pocket.judge.scene_training import SceneTrainer
from pipeline_lib.pocket.judge.training import Losses, NetworkSettings, train_network
from pipeline_lib.pocket.pieces import Piece
from pipeline_lib.world.render import render
from pipeline_lib.world.sampling import sample_scene
from pipeline_lib.world.vocabulary import CAMERAS


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FrameSource:
    folder = tmp_path_factory.mktemp("clips")
    shard = clip_cache.render_shard(0, count=24)
    np.savez(
        clip_cache.shard_path(folder, 0),
        frames=shard.frames,
        masks=np.packbits(shard.masks, axis=-1),
        scenes=np.array([scene.to_json() for scene in shard.scenes]),
    )
    decoded = folder / "decoded"
    decoded.mkdir()
    np.save(decoded / "decoded_00000.npy", shard.frames[:3] // 2 + 60)
    return FrameSource(folder, decoded, 3, shards=1, distractor_count=3)


@pytest.mark.parametrize("architecture", ["convolutions", "patches"])
def test_both_networks_learn_a_batch(source: FrameSource, architecture: Architecture) -> None:
    torch.manual_seed(0)
    scene, cut = SceneNetwork(architecture), CropNetwork(architecture)
    for network, losses in (
        (scene, SceneTrainer(scene, source, batch=12).losses),
        (cut, CropTrainer(cut, source, batch=12).losses),
    ):
        optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
        totals = []
        for _ in range(6):
            loss = torch.stack(list(losses(0).values())).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            totals.append(loss.item())
        assert totals[-1] < 0.8 * totals[0]
        assert all(value.grad is not None for value in network.parameters())


def test_steps_are_counted_draws(source: FrameSource) -> None:
    torch.manual_seed(0)
    trainer = SceneTrainer(SceneNetwork("patches"), source, batch=12)
    first, again, other = trainer.losses(4), trainer.losses(4), trainer.losses(5)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_turned_subjects_are_drawn_more_often(source: FrameSource) -> None:
    table = source.cached(np.random.default_rng(0), 400, 0)
    angle = np.nan_to_num(table.poses[..., 3])
    away = np.abs(np.angle(np.exp(1j * angle))).max(axis=1) > 0.7
    plain = np.abs(np.angle(np.exp(1j * np.nan_to_num(source.clips[0].poses[..., 3])))).max(axis=2) > 0.7
    assert 0 < plain.mean() < 0.3
    assert away.mean() > plain.mean() + 0.15


def tracks_trainer(network: MotionNetwork) -> Callable[[int], Losses]:
    return MotionTrainer(network, 5, pool=300, batch=64).losses


def test_a_training_in_pieces_gives_the_same_bits(tmp_path: Path) -> None:
    def run(folder: Path, pieces: list[int]) -> dict[str, torch.Tensor]:
        values: dict[str, torch.Tensor] = {}
        for until in pieces:
            torch.manual_seed(1)
            network = MotionNetwork(16, 3)
            losses = tracks_trainer(network)
            stops = until
            piece = Piece(folder, "motion", 10.0)

            def counted(
                step: int, piece: Piece = piece, losses: Callable[[int], Losses] = losses, stops: int = stops
            ) -> Losses:
                if step + 1 == stops:
                    piece._stopped = True
                return losses(step)

            values, done = train_network(network, counted, piece, NetworkSettings(steps=24, log_every=100))
            assert done == until
        return values

    whole, parts = run(tmp_path / "whole", [24]), run(tmp_path / "parts", [7, 18, 24])
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    before = network.weight.detach().clone()

    def losses(_step: int) -> Losses:
        return {"broken": network.weight.sum() * torch.inf}

    with pytest.raises(NonFiniteError, match="step 0"):
        train_network(network, losses, Piece(tmp_path, "broken", 1.0), NetworkSettings(steps=3))
    assert torch.equal(network.weight, before)


def test_motion_is_learnt_from_tracks_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = MotionNetwork(32, 3)
    trainer = MotionTrainer(network, 5, pool=1500)
    train_network(network, trainer.losses, Piece(tmp_path, "motion", 1.0), NetworkSettings(steps=80, log_every=100))
    network.eval()
    right = network(trainer.tracks).argmax(dim=1) == trainer.names
    assert right.float().mean() > 0.8


def test_lost_frames_are_filled_in_time() -> None:
    track = np.stack([np.linspace(10, 22, 13)] * 5, axis=1).astype(np.float32)
    track[:, 3] = np.angle(np.exp(1j * np.linspace(0, 5, 13)))
    holed = track.copy()
    holed[[3, 8]] = np.nan
    whole = filled(holed)
    assert np.allclose(whole[:, 0], track[:, 0], atol=1e-5)
    assert np.allclose(whole[:, 3], np.linspace(0, 5, 13), atol=1e-4)


def test_guesses_stay_near_but_some_are_turned_anywhere() -> None:
    pose = torch.tensor([[32.0, 30.0, 2.7, 0.3, 0.2]]).repeat(2000, 1)
    guess = jittered(pose, np.random.default_rng(0))
    off = (guess - pose).abs()
    assert off[:, 0].median() < 3.0
    assert 0.05 < (off[:, 3] > 1.0).float().mean() < 0.2


def test_registration_prefers_the_true_camera() -> None:
    right = count = 0
    for index in range(30):
        scene = sample_scene(12, index)
        if scene.backdrop.name in ("beach", "underwater"):
            continue
        clip = render(scene)
        features = clip_features(clip.frames, clip.subject_mask, scene, None)
        assert features.shape == (FEATURE_SIZE,)
        squared = features[4:8]
        right += int(squared.argmin()) == CAMERAS.index(scene.camera.name)
        count += 1
    assert right / count > 0.9


def test_weights_are_written_in_half_precision_and_come_back(tmp_path: Path) -> None:
    torch.manual_seed(2)
    networks = JudgeNetworks(DESIGNS["second"])
    save_networks(networks, tmp_path / "judge.safetensors", "second")
    again = Judge.load("second", tmp_path / "judge.safetensors")
    for name, value in networks.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(again.networks.state_dict()[name], value.half().float())
    assert len(again.digest) == 64
    assert isinstance(again.networks.camera, CameraNetwork)
