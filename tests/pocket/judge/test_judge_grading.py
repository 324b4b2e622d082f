"""What counts as right, what cannot be decided, and how shares are told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline_lib.pocket.judge.distractors import KINDS, distractor
from pipeline_lib.pocket.judge.grading import (
    answerable,
    colour_decidable,
    grade_subjects,
    grade_surroundings,
    main_colour_shown,
    texture_shown,
)
from pipeline_lib.pocket.judge.motion_reading import decidable
from pipeline_lib.pocket.judge.reading import Reading, SubjectReading, Word
from pipeline_lib.pocket.judge.tally import Share, Tally
from pipeline_lib.pocket.judge.truth import edited_scene, keeps_motion, reference_track, reference_words
from pipeline_lib.pocket.judge.truth_table import SUBJECT_WORDS, subject_labels
from pipeline_lib.pocket.judge.twins import (
    LEAST_CHANGED,
    TWIN_KINDS,
    changed_pixels,
    near_twin,
    near_twins,
    shown_kinds,
)
from pipeline_lib.pocket.judge.zoo_figures import grade_sample
from pipeline_lib.world.gizmos import gizmo, portrait
from pipeline_lib.world.motion import named_motion
from pipeline_lib.world.render import render
from pipeline_lib.world.sampling import SceneMix, sample_scene, scene_generator
from pipeline_lib.world.scene import Channel, Harmonic, Motion, Scene
from pipeline_lib.world.vocabulary import MOTIONS


def sure(word: str) -> Word:
    return Word(word, 1.0)


def perfect(scene: Scene) -> Reading:
    """A reading that says the truth."""
    subjects = tuple(
        SubjectReading(
            words={name: sure(str(getattr(subject, name))) for name in SUBJECT_WORDS},
            motion=sure(subject.motion.name),
            track=np.zeros((13, 5), dtype=np.float32),
            mask=np.zeros((13, 64, 64), dtype=bool),
            presence=1.0,
        )
        for subject in scene.subjects
    )
    daylight = torch.zeros(13, 3, 64, 64)
    return Reading(subjects, sure(scene.backdrop.name), sure(scene.light), sure(scene.camera.name), daylight)


def graded(scene: Scene, reading: Reading) -> dict[str, Share]:
    tally = Tally()
    grade_surroundings(tally, scene, reading)
    grade_subjects(tally, scene, reading, answerable(scene, render(scene)))
    return tally.shares()


def test_the_truth_gets_full_marks() -> None:
    scene = sample_scene(4, 0, SceneMix(two_share=1.0, creature_share=0.0))
    shares = graded(scene, perfect(scene))
    assert {"binding", "shape", "colour", "texture", "accessory", "motion", "number"} <= set(shares)
    assert all(share.value == 1.0 for share in shares.values())


def test_a_missing_subject_makes_all_of_its_answers_wrong() -> None:
    scene = sample_scene(4, 0, SceneMix(two_share=1.0, creature_share=0.0))
    whole = perfect(scene)
    shares = graded(scene, replace(whole, subjects=whole.subjects[:1]))
    for name in ("number", "shape", "texture", "binding"):
        assert shares[name].value == 0.0
    assert shares["background"].value == 1.0


def test_of_a_picture_no_motion_is_asked() -> None:
    scene = next(
        scene
        for scene in (sample_scene(4, index, SceneMix(two_share=0.0)) for index in range(20))
        if scene.subjects[0].motion.name != "free"
    )
    clip, picture = Tally(), Tally()
    grade_sample(clip, scene, perfect(scene))
    grade_sample(picture, scene, replace(perfect(scene), daylight=torch.zeros(1, 3, 64, 64)))
    assert clip.shares()["motion"].value == 1.0
    assert set(picture.shares()) == set(clip.shares()) - {"motion"}


def test_swapped_subjects_break_the_binding() -> None:
    scene = sample_scene(4, 0, SceneMix(two_share=1.0, creature_share=0.0))
    whole = perfect(scene)
    assert scene.subjects[0].shape != scene.subjects[1].shape
    assert graded(scene, replace(whole, subjects=whole.subjects[::-1]))["binding"].value == 0.0


@pytest.mark.parametrize("name", MOTIONS)
def test_named_motions_are_decidable(name: str) -> None:
    assert decidable(named_motion(name, scene_generator(1, 2)))


def test_a_free_hop_could_be_bouncing() -> None:
    hop = Channel(harmonics=(Harmonic("hop", -0.4, 2.0, 0.0),))
    squash = Channel(harmonics=(Harmonic("sine", 0.3, 1.0, 0.0),))
    assert not decidable(Motion("free"))
    assert not decidable(Motion("free", vertical=hop))
    assert decidable(Motion("free", vertical=hop, stretch=squash))


def test_half_and_half_has_no_main_colour() -> None:
    creature = sample_scene(4, 1, SceneMix(two_share=0.0, creature_share=1.0)).subjects[0]
    body = tuple(part for part in creature.parts if part.paint == 0)
    bare = replace(creature, texture="checkered", antennae=0, parts=body)
    assert not colour_decidable(bare)
    assert colour_decidable(replace(bare, texture="dotted"))
    assert colour_decidable(replace(bare, antennae=1))


def test_a_creature_is_not_named_by_a_colour_that_hardly_shows() -> None:
    scene = sample_scene(4, 1, SceneMix(two_share=0.0, creature_share=1.0, accessory_share=0.0))
    subject = scene.subjects[0]
    for paint, shown in ((0, True), (1, False)):
        parts = tuple(replace(part, paint=paint if place else 0) for place, part in enumerate(subject.parts))
        painted = replace(scene, subjects=(replace(subject, texture="plain", parts=parts, antennae=0),))
        assert main_colour_shown(painted, 0) == shown


def test_a_pattern_that_hardly_shows_is_not_asked() -> None:
    scene = sample_scene(4, 3, SceneMix(two_share=0.0, creature_share=0.0, accessory_share=0.0))
    for size, shown in ((0.5, True), (0.12, False)):
        small = replace(scene, subjects=(replace(scene.subjects[0], size=size, motion=Motion("still")),))
        assert texture_shown(small, 0) == shown


def test_what_lies_outside_of_the_frame_is_not_asked() -> None:
    scene = sample_scene(4, 3, SceneMix(two_share=0.0, creature_share=0.0))
    subject = replace(scene.subjects[0], accessory="hat", motion=Motion("still"))
    high = replace(scene, subjects=(replace(subject, position=(0.0, -0.75)),))
    gone = replace(scene, subjects=(replace(subject, position=(1.9, 0.0)),))
    assert "accessory" not in answerable(high, render(high))[0]
    assert "shape" in answerable(high, render(high))[0]
    assert "shape" not in answerable(gone, render(gone))[0]


@pytest.mark.parametrize(("right", "count"), [(0, 20), (19, 20), (250, 256), (256, 256)])
def test_intervals_are_wilsons(right: int, count: int) -> None:
    expected = stats.binomtest(right, count).proportion_ci(0.95, method="wilson")
    interval = Share(right, count).interval
    assert interval == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_no_trials_no_share() -> None:
    assert Share(0, 0).record() == {"value": None, "interval": None, "count": 0}


@pytest.mark.parametrize("kind", TWIN_KINDS)
def test_a_twin_differs_in_one_attribute_that_shows(kind: str) -> None:
    rng = scene_generator(6, 0)
    for index in range(24):
        subject = gizmo(index).reference.subjects[0]
        if kind not in shown_kinds(subject):
            continue
        twin = near_twin(subject, rng, kind)
        field = "parts" if kind == "part" else kind
        assert getattr(twin, field) != getattr(subject, field)
        assert replace(twin, **{field: getattr(subject, field)}) == subject
        assert np.abs(portrait(twin) - portrait(subject)).max() > 0.02


@pytest.mark.parametrize("index", range(4))
def test_twins_differ_visibly(index: int) -> None:
    subject = gizmo(index).reference.subjects[0]
    twins = near_twins(subject, scene_generator(6, index), 20)
    assert len(twins) == 20
    assert min(changed_pixels(subject, twin) for twin in twins) >= LEAST_CHANGED
    assert changed_pixels(subject, subject) == 0


def test_what_an_accessory_hides_is_no_truth() -> None:
    scene = sample_scene(4, 1, SceneMix(two_share=0.0, creature_share=1.0, accessory_share=0.0))
    columns = list(SUBJECT_WORDS)
    for accessory, hidden in (("none", set()), ("glasses", {"eyes"}), ("hat", {"antennae"})):
        worn = replace(scene, subjects=(replace(scene.subjects[0], accessory=accessory),))
        labels = subject_labels(worn)[0]
        assert {name for name, label in zip(columns, labels, strict=True) if label < 0} == hidden


@pytest.mark.parametrize("kind", KINDS)
def test_distractors_are_counted_draws(kind: str) -> None:
    first = distractor(kind, 5, 0)
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8
    assert (first == distractor(kind, 5, 0)).all()
    assert (first != distractor(kind, 5, 1)).any()


def test_an_edited_scene_has_what_the_prompt_asks_for() -> None:
    concept = gizmo(5)
    kinds = set()
    for prompt in concept.editing_prompts:
        words = reference_words(edited_scene(concept, prompt))
        assert all(words[name] == word for name, word in prompt.attributes.items())
        changed = {name for name, word in reference_words(concept.reference).items() if words[name] != word}
        assert changed <= set(prompt.attributes)
        kinds |= changed
        assert keeps_motion(prompt) == ("camera" not in prompt.attributes)
    assert kinds == {"background", "light", "camera", "accessory", "colour"}


def test_a_reference_track_has_the_metrics_columns() -> None:
    track = reference_track(gizmo(0).reference)
    clip = render(gizmo(0).reference)
    assert track.shape == (13, 4)
    assert (track[:, 0] == clip.tracks[0].x).all()
    assert (track[:, 2] == clip.tracks[0].angle).all()
    assert np.allclose(np.exp(track[:, 3]), clip.tracks[0].scale)
