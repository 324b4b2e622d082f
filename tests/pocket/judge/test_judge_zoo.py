"""The judge of the zoo: what it reads from clips, when it abstains, and whom it names."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.pocket.judge import Gallery, Judge, Reading, bars, ceilings, recipe, truth
from pipeline_lib.pocket.judge.distractors import KINDS, distractor
from pipeline_lib.pocket.judge.identity import FIRST, score_of, stranger_scenes
from pipeline_lib.pocket.judge.judge import DESIGNS, FROZEN, JudgeNetworks, judge_path
from pipeline_lib.pocket.world_settings import HELD_OUT_SEED
from pipeline_lib.storage.files import sha256
from pipeline_lib.storage.tensors import read_tensors
from pipeline_lib.world.gizmos import gizmo
from pipeline_lib.world.render import render

CLIPS = 16


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load()


@pytest.fixture(scope="module")
def drawn() -> bars.HeldOutClips:
    return bars.HeldOutClips.draw(CLIPS)


@pytest.fixture(scope="module")
def readings(judge: Judge, drawn: bars.HeldOutClips) -> list[Reading]:
    return bars.read_all(judge, drawn)


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    return Gallery.load(recipe.gallery_path("first"))


def test_both_judges_are_small_and_half_precision() -> None:
    numbers = sum(value.numel() for design in DESIGNS.values() for value in JudgeNetworks(design).state_dict().values())
    assert 2 * numbers < 4_000_000
    published = [path for name in DESIGNS if (path := judge_path(name)).exists()]
    assert judge_path("first") in published
    for path in published:
        tensors, _ = read_tensors(path)
        assert {str(value.dtype) for value in tensors.values()} == {"torch.float16"}


def test_the_judge_is_frozen() -> None:
    folder = judge_path("first").parent
    assert {path.name: sha256(path) for path in folder.iterdir()} == FROZEN


def test_attributes_of_held_out_clips(readings: list[Reading], drawn: bars.HeldOutClips) -> None:
    shares = bars.attribute_bars(readings, drawn)
    # Floors that a broken reader cannot reach; the bars themselves are measured by the command.
    for name in ("background", "light", "number", "camera", "shape", "colour", "texture", "accessory", "motion"):
        value = shares[name].value
        assert value is not None
        assert value > 0.8, f"{name}: {value}"


def test_tracks_and_masks_lie_on_the_subjects(readings: list[Reading], drawn: bars.HeldOutClips) -> None:
    errors = bars.pose_errors(readings, drawn)
    assert errors["centre"] < 2.0
    assert errors["angle"] < 15.0
    assert errors["mask_iou"] > 0.7


def test_pictures_without_a_subject(judge: Judge) -> None:
    empty = [not judge.read(distractor(kind, HELD_OUT_SEED, n)[None]).subjects for kind in KINDS for n in range(12)]
    assert np.mean(empty) > 0.85


def test_a_picture_has_neither_motion_nor_camera(judge: Judge, drawn: bars.HeldOutClips) -> None:
    reading = judge.read(drawn.clips[0].frames[6:7])
    assert reading.camera is None
    assert reading.subjects[0].motion is None
    assert reading.subjects[0].track.shape == (1, 5)


def test_reading_is_deterministic_and_leaves_the_frames_alone(judge: Judge, drawn: bars.HeldOutClips) -> None:
    frames = drawn.clips[1].frames.copy()
    first, again = judge.read(frames), judge.read(frames)
    assert (frames == drawn.clips[1].frames).all()
    assert first.background == again.background
    assert np.array_equal(first.subjects[0].track, again.subjects[0].track, equal_nan=True)


def test_a_clip_backwards_slides_the_other_way(judge: Judge, drawn: bars.HeldOutClips, readings: list[Reading]) -> None:
    opposite = {"sliding left": "sliding right", "sliding right": "sliding left"}
    turned = 0
    for reading, clip in zip(readings, drawn.clips, strict=True):
        main = reading.main
        if main is not None and main.motion is not None and main.motion.word in opposite:
            back = judge.read(clip.frames[::-1].copy()).main
            turned += 1
            assert back is not None
            assert back.motion is not None
            assert back.motion.word == opposite[main.motion.word]
    assert turned


def test_other_frames_are_refused(judge: Judge) -> None:
    for wrong in (
        np.zeros((1, 32, 32, 3), np.uint8),
        np.zeros((1, 64, 64, 3), np.float32),
        np.zeros((0, 64, 64, 3), np.uint8),
    ):
        with pytest.raises(InputError, match="judge reads clips"):
            judge.read(wrong)


def test_the_gallery_names_concepts_and_no_strangers(judge: Judge, gallery: Gallery) -> None:
    own = truth.identity_accuracy(judge.read(render(gizmo(8).reference).frames), 8, gallery).value
    strangers = [score_of(judge.read(render(scene).frames[::4]), FIRST) for scene in stranger_scenes(77, 4)]
    assert own is not None
    assert own > 0.9
    assert (np.concatenate(strangers) <= gallery.threshold).mean() < 0.05


def test_scores_of_the_reference_beat_another_concept(judge: Judge, gallery: Gallery) -> None:
    concept, other = gizmo(0), gizmo(1)
    prompt = concept.editing_prompts[0]
    own = truth.score(render(concept.reference).frames, concept, prompt, judge, gallery)
    foreign = truth.score(render(other.reference).frames, concept, prompt, judge, gallery)
    assert own.identity_accuracy is not None
    assert own.motion_fidelity is not None
    assert foreign.identity_accuracy == 0.0
    assert own.motion_fidelity > 0.8 > (foreign.motion_fidelity or 0.0)
    assert own.edit_accuracy is None


def test_the_ceiling_is_high(judge: Judge, gallery: Gallery) -> None:
    found = ceilings.ceilings(judge, gallery, concepts=range(1))
    for name in ("identity.reference", "identity.second", "identity.edited", "motion.reference", "edit_accuracy"):
        record = found[name]
        assert isinstance(record, dict)
        assert record["value"] > 0.85, name


def test_the_command_tells_of_the_second_dozen_alone() -> None:
    command = [sys.executable, "-m", "pipeline_lib.pocket.judge", "--json", "--part", "confirmation"]
    done = subprocess.run(
        [*command, "--clips", "1", "--concepts", "1"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    (part,) = json.loads(done.stdout).items()
    assert part[0] == "confirmation"
    assert set(part[1]) == {"chance", "ceiling", "false_accepts", "decoded_ceiling"}
    assert part[1]["ceiling"]["identity.reference"]["value"] > 0.85


def test_the_command_prints_every_figure() -> None:
    command = [sys.executable, "-m", "pipeline_lib.pocket.judge", "--json", "--part", "judge"]
    command += ["--clips", "1", "--concepts", "0"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    figures = json.loads(done.stdout)["judge"]
    assert figures["clips"]["background"]["count"] == 1
    assert {
        "pictures",
        "abstention",
        "tracks",
        "chance",
        "ceiling",
        "false_accepts",
        "decoded_clips",
        "agreement",
    } <= set(figures)
