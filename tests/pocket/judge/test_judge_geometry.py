"""Poses, crops and frozen moments, against the renderer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline_lib.pocket.judge.crops import corrected, crop, residual, uncrop, without_light
from pipeline_lib.pocket.judge.frame_source import table_of_scene
from pipeline_lib.pocket.judge.scene_training import to_pictures
from pipeline_lib.pocket.judge.truth_table import frozen, poses
from pipeline_lib.world.render import render
from pipeline_lib.world.sampling import SceneMix, sample_scene
from pipeline_lib.world.scene import Camera, Channel, Motion, Scene

ONE = SceneMix(two_share=0.0, creature_share=1.0)


def turned(scene: Scene, angle: float, stretch: float) -> Scene:
    """The subject in the middle, at a given angle (radians) and log stretch, for one frame."""
    motion = Motion("free", angle=Channel(drift=-2 * angle), stretch=Channel(drift=-stretch))
    subject = replace(scene.subjects[0], motion=motion, position=(0.0, 0.0), size=0.42)
    return replace(scene, subjects=(subject,), num_frames=1, camera=Camera("static", 0.0), light="day")


def test_a_correction_undoes_a_residual() -> None:
    draw = torch.Generator().manual_seed(0)
    truth, guess = (torch.randn(50, 5, generator=draw) * torch.tensor([9.0, 9.0, 0.2, 1.0, 0.4]) for _ in range(2))
    for pose in (truth, guess):
        pose[:, :2] += 32
        pose[:, 2] += 2.7
    found = corrected(guess, residual(truth, guess))
    assert (found - truth)[:, [0, 1, 2, 4]].abs().max() < 1e-3
    assert (torch.sin(found[:, 3] - truth[:, 3])).abs().max() < 1e-4
    assert (torch.cos(found[:, 3] - truth[:, 3])).min() > 0.999


@pytest.mark.parametrize(("angle", "stretch"), [(0.9, 0.0), (-2.5, 0.0), (0.0, 0.4), (2.0, -0.4)])
def test_crops_are_upright_and_unstretched(angle: float, stretch: float) -> None:
    scene = sample_scene(3, 4, ONE)
    cut = []
    for one in (turned(scene, 0.0, 0.0), turned(scene, angle, stretch)):
        mask = torch.from_numpy(render(one).masks[:, 0]).float()[None]
        cut.append(crop(mask, torch.from_numpy(poses(one)[:, 0]))[0, 0] > 0.5)
    assert (cut[0] & cut[1]).sum() / (cut[0] | cut[1]).sum() > 0.85
    assert cut[0].sum() > 200


def test_a_crop_is_laid_back_where_it_was_cut() -> None:
    scene = turned(sample_scene(3, 4, ONE), 1.1, 0.3)
    mask = torch.from_numpy(render(scene).masks[:, 0]).float()[None]
    pose = torch.from_numpy(poses(scene)[:, 0])
    back = uncrop(crop(mask, pose), pose) > 0.5
    assert (back & (mask > 0.5)).sum() / (back | (mask > 0.5)).sum() > 0.9


def test_dividing_the_light_out_gives_daylight() -> None:
    scene = sample_scene(3, 9, ONE)
    day, night = (to_pictures(render(replace(scene, light=light)).frames[:1]) for light in ("day", "night"))
    recovered = without_light(night, torch.tensor([[0.0, 0.0, 1.0]]))
    assert (recovered - day).abs().max() < 0.01
    assert (night - day).abs().max() > 0.3


@pytest.mark.parametrize("index", range(6))
def test_a_frozen_moment_shows_the_subjects_as_the_clip_does(index: int) -> None:
    scene = sample_scene(8, index)
    for frame in (0, 5, 12):
        moment = frozen(scene, frame)
        assert np.abs(poses(moment)[0] - poses(scene)[frame])[: len(scene.subjects)].max() < 2e-3
        if scene.camera.name == "static":
            difference = render(moment).frames[0].astype(int) - render(scene).frames[frame]
            assert np.abs(difference).max() <= 2


def test_a_table_row_knows_its_subject() -> None:
    scene = sample_scene(8, 1, ONE)
    row = table_of_scene(scene, 4)
    assert row.frames.shape == (1, 64, 64, 3)
    assert row.masks[0, 0].sum() > 50
    assert not row.masks[0, 1].any()
    assert np.isnan(row.poses[0, 1]).all()
    assert (row.labels[0, 1] == -1).all()
    assert row.take(np.array([0, 0])).frames.shape == (2, 64, 64, 3)
