"""Held-out concepts: complete, deterministic, far from training draws and from each other."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.world import gizmos, vocabulary
from pipeline_lib.world.gizmos import distance, gizmo, motion_signature, portrait
from pipeline_lib.world.render import render
from pipeline_lib.world.sampling import sample_scene

EVERY = [gizmo(index) for index in range(24)]


def test_there_are_two_dozen_for_tuning_reporting_and_confirmation() -> None:
    assert sorted((*gizmos.TUNING, *gizmos.REPORTING)) == list(gizmos.dozen(5))
    assert (len(gizmos.TUNING), len(gizmos.REPORTING)) == (4, 8)
    assert gizmos.CONFIRMATION == tuple(gizmos.dozen(12)) == tuple(gizmos.dozen(23)) == tuple(range(12, 24))
    assert len({each.name for each in EVERY}) == 24
    with pytest.raises(InputError, match="no such gizmo"):
        gizmo(24)


@pytest.mark.parametrize("each", EVERY, ids=lambda each: each.name)
def test_each_has_two_clips_of_one_concept(each: gizmos.Gizmo) -> None:
    first, second = each.reference.subjects[0], each.second.subjects[0]
    assert portrait(first) == pytest.approx(portrait(second))
    assert first.motion == second.motion
    assert each.reference.backdrop.name != each.second.backdrop.name
    for scene in (each.reference, each.second):
        shares = render(scene).masks[0].mean(axis=(1, 2))
        assert shares.min() > 0.06


@pytest.mark.parametrize("each", EVERY, ids=lambda each: each.name)
def test_editing_prompts_are_complete(each: gizmos.Gizmo) -> None:
    kinds = [prompt.kind for prompt in each.editing_prompts]
    assert kinds.count("local") >= 4 and kinds.count("global") >= 4 and "reconstruction" in kinds
    for prompt in each.editing_prompts:
        assert prompt.text.count("{subject}") == 1
        assert "sks creature" in prompt.text.format(subject="sks creature")
        for key, value in prompt.attributes.items():
            words = {
                "background": vocabulary.BACKGROUNDS,
                "accessory": vocabulary.ACCESSORIES,
                "colour": vocabulary.COLOURS,
                "light": vocabulary.LIGHTS,
                "camera": vocabulary.CAMERAS,
            }
            assert value in words[key]


def test_gizmos_are_far_from_each_other() -> None:
    subjects = [each.reference.subjects[0] for each in EVERY]
    seen = [(portrait(subject), motion_signature(subject.motion)) for subject in subjects]
    for (look, motion), (other_look, other_motion) in combinations(seen, 2):
        assert distance(look, other_look) > 0.11
        assert distance(motion, other_motion) > 0.05


def test_gizmos_are_farther_from_training_than_training_from_itself() -> None:
    looks = np.stack(
        [
            portrait(replace(subject, accessory="none"))
            for index in range(400)
            for subject in sample_scene(1, index).subjects
            if subject.kind == "creature"
        ]
    )
    between = np.sqrt(((looks[:60, None] - looks[None]) ** 2).mean(-1))
    between[np.arange(60), np.arange(60)] = np.inf
    usual = float(np.median(between.min(axis=1)))
    for each in EVERY:
        look = portrait(each.reference.subjects[0])
        assert np.sqrt(((looks - look) ** 2).mean(axis=1)).min() > 1.15 * usual
