"""Pairs: two gizmos in one clip, both in sight, each with its own look and motion, and words that training has."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.world.captions import CaptionStyle, caption_parts
from pipeline_lib.world.gizmos import REPORTING, TUNING, portrait
from pipeline_lib.world.motion import channel_values
from pipeline_lib.world.pairs import PAIR_NOUN, PAIRS, REPORTING_PAIRS, SHRINK, TUNING_PAIRS, Pair, pair
from pipeline_lib.world.render import render
from pipeline_lib.world.sampling import scene_generator

EVERY = [pair(index) for index in PAIRS]


def test_tuning_and_reporting_gizmos_are_never_mixed() -> None:
    members = {
        indices: sorted(member.index for index in indices for member in pair(index).members)
        for indices in (TUNING_PAIRS, REPORTING_PAIRS)
    }
    assert members == {TUNING_PAIRS: list(TUNING), REPORTING_PAIRS: list(REPORTING)}
    assert pair(0).name == "Bim and Zoffle"
    for none in (-1, len(PAIRS)):
        with pytest.raises(InputError, match="no such pair"):
            pair(none)


@pytest.mark.parametrize("each", EVERY, ids=lambda each: each.name)
def test_both_clips_show_two_subjects_left_and_right(each: Pair) -> None:
    for scene in (each.reference, each.second):
        clip = render(scene)
        assert clip.masks.shape[0] == 2
        assert clip.masks.mean(axis=(2, 3)).min() > 0.04, "of the frame, in every frame"
        left, right = (track.x for track in clip.tracks)
        assert (left < right - 10).all(), "pixels: they never meet"
        assert np.array_equal(clip.frames, render(scene).frames)
    assert each.reference.backdrop == each.members[0].reference.backdrop
    assert each.second.backdrop.name != each.reference.backdrop.name


@pytest.mark.parametrize("each", EVERY, ids=lambda each: each.name)
def test_each_member_looks_and_moves_as_in_its_own_clip_and_smaller(each: Pair) -> None:
    for member, small, again in zip(each.members, each.reference.subjects, each.second.subjects[::-1], strict=True):
        own = member.reference.subjects[0]
        assert portrait(small) == pytest.approx(portrait(own))
        assert small.size == pytest.approx(SHRINK * own.size)
        for name in ("horizontal", "vertical"):
            path, whole = (channel_values(getattr(one.motion, name), 13) for one in (small, own))
            assert path == pytest.approx(SHRINK * whole, abs=1e-6)
        for name in ("angle", "size", "stretch"):
            assert getattr(small.motion, name) == getattr(own.motion, name)
        assert (small.motion, small.position[0]) == (again.motion, -again.position[0]), "on the other side"


@pytest.mark.parametrize("each", EVERY, ids=lambda each: each.name)
def test_it_is_asked_for_in_the_words_of_training(each: Pair) -> None:
    general = CaptionStyle(general_share=1.0, mention=1.0)
    said = [caption_parts(each.reference, scene_generator(1, number), general) for number in range(50)]
    assert {part.class_noun for part in said} == {"creature and creature"}
    assert each.static_caption == f"a {PAIR_NOUN}"
    assert each.static_caption in {part.static for part in said}
    assert each.motion_caption in {part.motion for part in said}
    texts = [prompt.text for prompt in each.editing_prompts]
    assert each.editing_prompts[0].kind == "reconstruction"
    assert texts[0].format(subject=PAIR_NOUN) == each.caption
    assert len(set(texts)) == len(texts) == len(each.members[0].editing_prompts) - 1
    assert all(text.startswith("a {subject} ") and " both moving " in text for text in texts)
    assert not any("colour" in prompt.attributes for prompt in each.editing_prompts), "whose?"
