"""The pocket world: determinism, coverage, truth that matches the pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.world import vocabulary
from pipeline_lib.world.captions import CaptionStyle, caption, caption_parts, join_parts
from pipeline_lib.world.motion import channel_values, named_motion
from pipeline_lib.world.render import render, subject_track
from pipeline_lib.world.sampling import SceneMix, sample_scene, scene_generator
from pipeline_lib.world.scene import Scene

SEED = 4711


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene(SEED, index) for index in range(600)]


def test_same_seed_and_index_give_the_same_bytes_in_any_order() -> None:
    forwards = [render(sample_scene(SEED, index)).frames for index in range(3)]
    backwards = [render(sample_scene(SEED, index)).frames for index in (2, 1, 0)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert not np.array_equal(forwards[0], forwards[1])


def test_frames_have_the_settled_shape() -> None:
    clip = render(sample_scene(SEED, 0))
    assert clip.frames.shape == (13, 64, 64, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.masks.shape[1:] == (13, 64, 64)


def test_the_whole_vocabulary_is_drawn(scenes: list[Scene]) -> None:
    subjects = [subject for scene in scenes for subject in scene.subjects]
    assert {subject.shape for subject in subjects} == {*vocabulary.SHAPES, "creature"}
    assert {subject.colour for subject in subjects} == set(vocabulary.COLOURS)
    assert {subject.texture for subject in subjects} == set(vocabulary.TEXTURES)
    assert {subject.accessory for subject in subjects} == set(vocabulary.ACCESSORIES)
    assert {subject.motion.name for subject in subjects} == {*vocabulary.MOTIONS, "free"}
    assert {scene.backdrop.name for scene in scenes} == set(vocabulary.BACKGROUNDS)
    assert {scene.light for scene in scenes} == set(vocabulary.LIGHTS)
    assert {scene.camera.name for scene in scenes} == set(vocabulary.CAMERAS)
    assert {len(scene.subjects) for scene in scenes} == {1, 2}
    assert {s.eyes for s in subjects if s.kind == "creature"} == {1, 2, 3, 4}


def test_half_of_the_subjects_are_creatures(scenes: list[Scene]) -> None:
    kinds = [subject.kind for scene in scenes for subject in scene.subjects]
    assert kinds.count("creature") / len(kinds) >= 0.5


def test_held_out_triples_are_a_tenth_and_never_in_training(scenes: list[Scene]) -> None:
    assert len(vocabulary.HELD_OUT_TRIPLES) == 32
    shapes = [s for scene in scenes for s in scene.subjects if s.kind == "shape"]
    assert not {(s.shape, s.colour, s.texture) for s in shapes} & vocabulary.HELD_OUT_TRIPLES
    held_out = [sample_scene(SEED, index, SceneMix(held_out=True)) for index in range(40)]
    drawn = {(s.shape, s.colour, s.texture) for scene in held_out for s in scene.subjects}
    assert drawn <= vocabulary.HELD_OUT_TRIPLES


def _grown(mask: np.ndarray) -> np.ndarray:
    """The mask and its eight neighbours: the antialiased rim lies outside the mask."""
    for axis in (1, 2):
        mask = mask | np.roll(mask, 1, axis=axis) | np.roll(mask, -1, axis=axis)
    return mask


def test_background_does_not_depend_on_the_subject() -> None:
    scene = sample_scene(SEED, 5)
    empty = render(replace(scene, subjects=()))
    clip = render(scene)
    outside = ~_grown(clip.subject_mask)
    assert outside.mean() > 0.3
    assert np.array_equal(clip.frames[outside], empty.frames[outside])


def test_mask_covers_exactly_what_the_subject_changes() -> None:
    for index in range(12):
        scene = sample_scene(SEED, index)
        clip, empty = render(scene), render(replace(scene, subjects=()))
        changed = np.abs(clip.frames.astype(int) - empty.frames.astype(int)).max(axis=-1)
        mask = clip.subject_mask
        # Strings and stalks are thinner than a pixel: they may leave a faint trace beside the mask.
        assert (changed[~_grown(mask)] > 30).mean() < 1e-3
        assert (changed[mask] > 0).mean() > 0.9


def test_track_is_where_the_mask_is() -> None:
    scene = sample_scene(SEED, 0, SceneMix(creature_share=0.0, two_share=0.0, accessory_share=0.0))
    subject = replace(scene.subjects[0], shape="circle", motion=named_motion("orbiting", scene_generator(1, 1)))
    clip = render(replace(scene, subjects=(subject,)))
    rows, columns = np.mgrid[0:64, 0:64] + 0.5
    for frame in range(13):
        mask = clip.masks[0, frame]
        assert columns[mask].mean() == pytest.approx(clip.tracks[0].x[frame], abs=0.6)
        assert rows[mask].mean() == pytest.approx(clip.tracks[0].y[frame], abs=0.6)


def test_second_subject_hides_the_first() -> None:
    scene = next(s for s in (sample_scene(SEED, i) for i in range(100)) if len(s.subjects) == 2)
    below, above = scene.subjects
    stacked = replace(scene, subjects=(replace(below, position=above.position), above))
    masks = render(stacked).masks
    assert not (masks[0] & masks[1]).any()


def test_motions_are_told_apart_by_their_tracks() -> None:
    rng = scene_generator(SEED, 0)
    moved = {name: named_motion(name, rng) for name in vocabulary.MOTIONS}
    spans = {
        name: tuple(
            round(float(np.ptp(channel_values(channel, 13))), 3)
            for channel in (m.horizontal, m.vertical, m.angle, m.size)
        )
        for name, m in moved.items()
    }
    assert spans["still"] == (0.0, 0.0, 0.0, 0.0)
    left, right = (channel_values(moved[f"sliding {side}"].horizontal, 13) for side in ("left", "right"))
    assert left[0] > left[-1] and right[0] < right[-1]
    assert spans["spinning"][2] > 4.0 and spans["pulsing"][3] > 0.3
    assert len(set(spans.values())) == len(spans)


def test_scene_survives_json() -> None:
    scene = sample_scene(SEED, 11)
    assert Scene.from_json(scene.to_json()) == scene
    with pytest.raises(InputError, match="scene record"):
        Scene.from_json("{}")


def test_second_look_differs_in_pixels_and_shares_the_truth() -> None:
    scene = sample_scene(SEED, 3)
    flat, outline = render(scene), render(replace(scene, look="outline"))
    assert not np.array_equal(flat.frames, outline.frames)
    assert np.array_equal(flat.masks, outline.masks)
    with pytest.raises(InputError, match="look"):
        render(replace(scene, look="oil"))


def test_longer_clips_go_on_with_the_same_motion() -> None:
    scene = sample_scene(SEED, 8)
    short, long = scene, replace(scene, num_frames=21)
    for subject in scene.subjects:
        ahead = subject_track(long, subject).x[:13]
        assert np.allclose(subject_track(short, subject).x, ahead)


def test_parts_tell_look_and_motion_apart(scenes: list[Scene]) -> None:
    for index, scene in enumerate(scenes[:200]):
        parts = caption_parts(scene, scene_generator(SEED, index, 1), CaptionStyle(full=True))
        assert all((parts.static, parts.motion, parts.camera, parts.background, parts.light))
        assert not any(word.endswith("ing") for word in parts.motion.split() if word in parts.static)
        assert join_parts(parts) == caption(scene, scene_generator(SEED, index, 1), CaptionStyle(full=True))


def test_captions_range_from_terse_to_full(scenes: list[Scene]) -> None:
    lengths = [len(caption(scene, scene_generator(SEED, index, 1)).split()) for index, scene in enumerate(scenes)]
    assert min(lengths) <= 3 and max(lengths) >= 18
    creatures = [s for s in scenes if [u.kind for u in s.subjects] == ["creature"]]
    looks = [caption_parts(s, scene_generator(SEED, i, 1)).static for i, s in enumerate(creatures)]
    assert sum(look == "a creature" for look in looks) > 0.1 * len(looks)


def test_image_captions_say_nothing_of_motion_or_camera(scenes: list[Scene]) -> None:
    for index, scene in enumerate(scenes[:100]):
        parts = caption_parts(scene, scene_generator(SEED, index, 1), CaptionStyle(image=True))
        assert (parts.motion, parts.camera) == ("", "")
