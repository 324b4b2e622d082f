"""Who is named: the concept that a crop looks like most, unless a twin is nearer or nobody is near."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.pocket.judge import identity
from pipeline_lib.pocket.judge.identity import FIRST, NOBODY, Gallery
from pipeline_lib.pocket.judge.likeness import cut, paint_templates, registered, unlikeness
from pipeline_lib.pocket.judge.reading import SubjectReading, Word
from pipeline_lib.pocket.judge.scene_training import to_pictures
from pipeline_lib.pocket.judge.truth_table import SUBJECT_WORDS, poses
from pipeline_lib.storage.tensors import save_tensors
from pipeline_lib.world.gizmos import dozen, gizmo
from pipeline_lib.world.render import render
from pipeline_lib.world.scene import Scene


def seen(scene: Scene, off: tuple[float, ...] = (0.0,) * 5) -> tuple[SubjectReading, torch.Tensor]:
    """A subject as a judge reads it that is off by so much, and the frames: every fourth one."""
    subject = scene.subjects[0]
    track = poses(scene)[::4, 0] + np.array(off, dtype=np.float32)
    one = SubjectReading(
        words={name: Word(str(getattr(subject, name)), 1.0) for name in SUBJECT_WORDS},
        motion=None,
        track=track,
        mask=np.zeros((len(track), 64, 64), dtype=bool),
        presence=1.0,
    )
    return one, to_pictures(render(scene).frames[::4])


@pytest.mark.parametrize("index", [0, 2, 5, 8, 11, 12, 18, 23])
def test_a_concept_is_known_by_its_true_poses(index: int) -> None:
    nearest, score = identity.nearest_concepts(*seen(gizmo(index).second), dozen(index))
    assert (nearest == index).all()
    assert (score < -0.4).all()


def test_whoever_is_of_the_other_dozen_is_not_named() -> None:
    one, daylight = seen(gizmo(15).reference)
    assert (Gallery(-0.4).names(one, daylight, dozen(15)) == 15).all()
    assert (Gallery(-0.4).names(one, daylight, FIRST) == NOBODY).all()
    one, daylight = seen(gizmo(9).reference)
    assert (Gallery(-0.4).names(one, daylight, dozen(15)) == NOBODY).all()


def test_registration_finds_back_to_the_subject() -> None:
    scene = gizmo(1).reference
    one, daylight = seen(scene, (1.5, -1.0, 0.08, 0.2, 0.1))
    template = identity.everybody(FIRST).templates.take(torch.tensor([1] * 4))
    off = torch.from_numpy(one.track)
    found, left = registered(daylight, off, template, torch.zeros(4, 48, 48))
    true = torch.from_numpy(poses(scene)[::4, 0])
    assert ((found - true)[:, :2].abs().amax(dim=1) < 1.0).all()
    assert ((found - true)[:, 3].abs() < 0.06).all()
    assert (left < -200).all()


def test_a_gallery_twin_is_not_named_as_the_concept() -> None:
    named = [
        (identity.nearest_concepts(*seen(scene), FIRST)[0] == 3).mean()
        for scene in identity.twin_scenes(3, identity._GALLERY_SEED, 6)
    ]
    assert np.mean(named) < 0.15


def test_an_accessory_does_not_change_who_it_is() -> None:
    scene = gizmo(9).reference
    for word in ("hat", "scarf", "glasses", "balloon"):
        worn = replace(scene.subjects[0], accessory=word, accessory_colour="red")
        nearest, _ = identity.nearest_concepts(*seen(replace(scene, subjects=(worn,))), FIRST)
        assert (nearest == 9).mean() > 0.7


def test_who_is_not_alike_enough_is_nobody() -> None:
    one, daylight = seen(gizmo(2).reference)
    assert (Gallery(0.0).names(one, daylight, FIRST) == 2).all()
    assert (Gallery(-1.1).names(one, daylight, FIRST) == NOBODY).all()


def test_a_frame_without_a_subject_is_nobody() -> None:
    one, daylight = seen(gizmo(2).reference)
    lost = replace(one, track=np.where(np.arange(4)[:, None] == 1, np.nan, one.track).astype(np.float32))
    assert Gallery(0.0).names(lost, daylight, FIRST).tolist() == [2, NOBODY, 2, 2]
    gone = replace(one, track=np.full_like(one.track, np.nan))
    assert (Gallery(0.0).names(gone, daylight, FIRST) == NOBODY).all()


def test_a_template_is_most_like_its_own_crop() -> None:
    scenes = [gizmo(index).second for index in range(4)]
    templates = paint_templates([scene.subjects[0] for scene in scenes])
    for index, scene in enumerate(scenes):
        one, daylight = seen(scene)
        far = unlikeness(*cut(daylight, torch.from_numpy(one.track)), templates)
        assert (far.argmin(dim=1) == index).all()


def test_a_gallery_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "gallery.safetensors"
    Gallery(-0.25).save(path)
    assert Gallery.load(path) == Gallery(-0.25)


def test_another_file_is_no_gallery(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_tensors(path, {}, {})
    with pytest.raises(InputError, match="holds no gallery"):
        Gallery.load(path)
