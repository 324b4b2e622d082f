"""The captioner's recipe: its language, its own forward, resuming; the published weights' floor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.captions.fields import read_fields
from pipeline_lib.captions.template import TemplateCaptioner
from pipeline_lib.captions.vlm import VLMCaptioner
from pipeline_lib.media.collect import collect
from pipeline_lib.media.read import read_clips, read_images
from pipeline_lib.observers import open_captioner
from pipeline_lib.pocket import captioner_language as language
from pipeline_lib.pocket.captioner import CaptionerSettings, CaptionerTrainer, batch_of
from pipeline_lib.pocket.captioner_data import LessonSource, asked_subject, cells_of, mirrored, poses_of
from pipeline_lib.pocket.captioner_model import build_captioner, publish, vision_features
from pipeline_lib.pocket.captioner_quality import captioner_figures, grade_caption, static_attributes
from pipeline_lib.pocket.judge.tally import Tally
from pipeline_lib.pocket.pieces import Piece
from pipeline_lib.pocket.zoo import zoo_root
from pipeline_lib.records import Caption, FrameRules
from pipeline_lib.run_config import RunConfig, with_settings
from pipeline_lib.world.gizmos import gizmo
from pipeline_lib.world.render import render
from pipeline_lib.world.sampling import SceneMix, sample_scene, scene_generator

FLOORS = {"background": 0.85, "light": 0.9, "camera": 0.75, "static": 0.5, "motion": 0.3, "elsewhere": 0.85}
TINY = CaptionerSettings(steps=12, batch=4)
NOWHERE = Path("nowhere")


@pytest.fixture(scope="module")
def source() -> LessonSource:
    made = LessonSource(NOWHERE, strangers=2)
    scenes = tuple(sample_scene(7, index) for index in range(6))
    clips = [render(scene) for scene in scenes]
    made.scenes, made.frames = [scenes], [np.stack([clip.frames for clip in clips])]
    made.occupancy = [cells_of(np.stack([clip.subject_mask for clip in clips]))]
    made.poses = [poses_of(scenes)]
    return made


def test_any_answer_is_a_few_tokens_and_survives() -> None:
    tokenizer = language.build_tokenizer()
    for index in range(100):
        scene = sample_scene(7, index)
        said = language.answer(scene, 0, moving=index % 2 == 0)
        tokens = tokenizer(said).input_ids
        assert len(tokens) < 26 and tokenizer.decode(tokens) == said
        assert set(read_fields(said)) == set(language.FIELDS)
    strange = "ein Wölfchen, „müde“ 🐺"
    assert tokenizer.decode(tokenizer(strange).input_ids) == strange
    assert len(tokenizer(language.question("creature", moving=True)).input_ids) == 5


def test_a_canonical_answer_is_graded_right() -> None:
    tally = Tally()
    for index in range(14):
        scene = sample_scene(7, index)
        clip = render(scene)
        fields = read_fields(language.answer(scene, 0, moving=True))
        grade_caption(tally, scene, clip, Caption(class_noun="creature", **fields))
        grade_caption(tally, scene, clip, Caption(class_noun="creature"))
    shares = tally.shares()
    assert {"static", "static_exact", "motion", "camera", "background", "light"} <= set(shares)
    for field in ("motion", "camera", "background", "light"):
        assert shares[field].value == 0.5
    assert shares["static_exact"].value == 0.5


def test_synonyms_are_understood() -> None:
    told = static_attributes(
        "stripy turquoise and red with two eyes and an antenna, holding a balloon, next to a blue ring"
    )
    assert told == {
        "colours": ("cyan", "red"), "texture": "striped", "accessory": "balloon", "eyes": 2, "antennae": 1,
    }  # fmt: skip
    assert static_attributes("")["colours"] == ()


def test_a_mirror_swaps_left_and_right() -> None:
    names = {one.motion.name for index in range(60) for one in mirrored(sample_scene(7, index)).subjects}
    assert {"sliding left", "sliding right", "bouncing"} <= names
    for index in range(60):
        scene = sample_scene(7, index)
        assert mirrored(mirrored(scene)) == scene


def test_of_a_pair_the_named_one_is_asked_about() -> None:
    for index in range(30):
        scene = sample_scene(7, index, SceneMix(two_share=1.0))
        which, noun = asked_subject(scene, scene_generator(7, index, 1))
        assert which == [one.shape for one in scene.subjects].index(scene.subjects[which].shape)
        assert noun in language.nouns()


@torch.no_grad()
@pytest.mark.parametrize("step", [0, 4, 14])
def test_training_computes_what_the_class_computes(source: LessonSource, step: int) -> None:
    torch.manual_seed(0)
    tokenizer = language.build_tokenizer()
    model = build_captioner(tokenizer).eval()
    batch = batch_of(source.batch(step, 3), tokenizer)
    expected = model.model.visual(batch.patches, batch.grid).pooler_output
    assert torch.allclose(vision_features(model, batch.patches, batch.groups).flatten(0, 1), expected, atol=1e-5)
    assert (batch.kinds > 0).sum() == len(expected)


def test_a_batch_is_what_the_captioner_gives_its_model(source: LessonSource, tmp_path: Path) -> None:
    tokenizer = language.build_tokenizer()
    publish(dict(build_captioner(tokenizer).named_parameters()), tmp_path / "captioner")
    captioner = VLMCaptioner(tmp_path / "captioner")
    for step, name in ((0, "pixel_values_videos"), (14, "pixel_values")):
        (lesson,) = source.batch(step, 1)
        batch = batch_of([lesson], tokenizer)
        given = captioner._inputs(np.ascontiguousarray(lesson.frames), lesson.noun, unordered=len(lesson.frames) < 13)
        asked = given["input_ids"].shape[1]
        assert torch.equal(batch.tokens[:, :asked], given["input_ids"])
        assert torch.equal(batch.kinds[:, :asked], given["mm_token_type_ids"])
        assert torch.allclose(batch.patches, given[name], atol=1e-5)
        assert (batch.weights[:, :asked] == 0).all() and (batch.weights[:, asked:] > 0).all()


def test_training_learns_and_goes_on_as_if_it_had_not_stopped(source: LessonSource, tmp_path: Path) -> None:
    whole = CaptionerTrainer(Piece(tmp_path / "whole", "c", 1.0), source, TINY, NOWHERE)
    losses = [whole.advance()[0] for _ in range(8)]
    assert losses[-1] < losses[0]
    half = CaptionerTrainer(Piece(tmp_path / "half", "c", 1.0), source, TINY, NOWHERE)
    half.advance()
    half.save()
    rest = CaptionerTrainer(Piece(tmp_path / "half", "c", 1.0), source, TINY, NOWHERE)
    assert rest.step == 1
    assert [rest.advance()[0] for _ in range(7)] == losses[1:]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, rest.model.state_dict()[name]), name


def test_the_published_captioner_keeps_its_floor() -> None:
    figures = captioner_figures(zoo_root() / "captioner", count=24)["captioner"]
    low = {name: FLOORS[name] for name in FLOORS if figures[name]["value"] < FLOORS[name]}
    assert not low, figures


def test_of_real_clips_it_says_nothing_or_is_not_sure(media_folder: Path) -> None:
    rules = FrameRules(height=64, width=64, num_frames=13, frames_per_second=8, frame_multiple=1)
    config = with_settings(RunConfig(), ["concept.captioner=auto"])
    captioner, template = open_captioner(config), TemplateCaptioner()
    (wolf,) = read_clips([media_folder / "clips" / "wolf.mp4"], rules)
    assert captioner.caption(wolf.frames, "wolf") == template.caption(wolf.frames, "wolf")
    assert captioner.notes
    dogs = read_images(collect(media_folder / "subjects" / "dog6").images, rules).frames
    said = captioner.caption(dogs, "dog", unordered=True)
    assert said == template.caption(dogs, "dog", unordered=True)


def test_a_concept_that_no_caption_can_express_is_a_creature_in_its_place() -> None:
    captioner = VLMCaptioner(zoo_root() / "captioner")
    said = captioner.caption(render(gizmo(4).reference).frames, "creature")
    assert captioner.notes == ()
    assert said.class_noun == "creature" and said.static and said.light == "in daylight"
