"""Recipes of the encoders: they learn, they go on as if they had not been interrupted, and what they publish holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModel, CLIPModel, ViTModel

from pipeline_lib.features.identity import CropIdentityEncoder, IdentityConfig
from pipeline_lib.features.vit import VitEncoder
from pipeline_lib.pocket import clip_cache, clip_encoder, identity_encoder, image_encoder
from pipeline_lib.pocket.clip_encoder import ClipSettings, ClipTrainer, PairSource
from pipeline_lib.pocket.identity_encoder import IdentitySettings, IdentityTraining, MarginSoftmax, varied_masks
from pipeline_lib.pocket.identity_figures import identity_figures, verified
from pipeline_lib.pocket.image_encoder import ImageSettings, ImageTraining, build_vit, from_clip, image_encoder_figures
from pipeline_lib.pocket.judge.training import NetworkSettings, train_network
from pipeline_lib.pocket.pieces import Piece
from pipeline_lib.pocket.subject_views import SubjectViews, posed, render_views, training_subjects, view_of
from pipeline_lib.pocket.tokenizer import build_tokenizer
from pipeline_lib.pocket.zoo import zoo_folder
from pipeline_lib.world.render import render, subject_track
from pipeline_lib.world.sampling import SceneMix, sample_scene, scene_generator
from pipeline_lib.world.vocabulary import HELD_OUT_TRIPLES

_IDENTITY = IdentitySettings(subjects=8, twins=2, creatures=10, pool_twins=4, views=3)
_IMAGE = ImageSettings(subjects=8)


@pytest.fixture(scope="module")
def pool() -> SubjectViews:
    """Six plain shapes, ten creatures, four twins."""
    return render_views(training_subjects(1, 10, 4)[-20:], 1, _IDENTITY.views)


@pytest.fixture(scope="module")
def pairs() -> PairSource:
    source = PairSource(Path("nowhere"), build_tokenizer(captions=300))
    source.shards = [clip_cache.render_shard(0, count=12)]
    return source


def _training(name: str, pool: SubjectViews) -> IdentityTraining | ImageTraining:
    torch.manual_seed(0)
    if name == "identity":
        return IdentityTraining(IdentityConfig(crop_size=16, widths=(8, 16, 24)), pool, _IDENTITY)
    clip = CLIPModel.from_pretrained(zoo_folder("clip"), torch_dtype=torch.float32)
    return ImageTraining(from_clip(clip), pool, _IMAGE)


@pytest.mark.parametrize("name", ["identity", "image"])
def test_interrupted_training_goes_on_as_if_it_had_not_been(name: str, pool: SubjectViews, tmp_path: Path) -> None:
    recipe = NetworkSettings(steps=4)
    whole = _training(name, pool)
    expected, _ = train_network(whole, whole.losses, Piece(tmp_path / "whole", name, 9.0), recipe)
    piece, half = Piece(tmp_path / "half", name, 9.0), _training(name, pool)

    def interrupted(step: int) -> dict[str, torch.Tensor]:
        piece.minutes = 9.0 if step == 0 else 0.0
        return half.losses(step)

    assert train_network(half, interrupted, piece, recipe)[1] == 2
    rest = _training(name, pool)
    values, steps = train_network(rest, rest.losses, Piece(tmp_path / "half", name, 9.0), recipe)
    assert steps == 4
    for key, value in expected.items():
        assert torch.equal(value, values[key]), key


@pytest.mark.parametrize("name", ["identity", "image"])
def test_a_few_steps_teach_something(name: str, pool: SubjectViews, tmp_path: Path) -> None:
    training, contrast = _training(name, pool), []

    def watched(step: int) -> dict[str, torch.Tensor]:
        losses = training.losses(step)
        contrast.append(losses["contrast"].item())
        return losses

    train_network(training, watched, Piece(tmp_path, name, 9.0), NetworkSettings(steps=16))
    assert np.mean(contrast[-4:]) < np.mean(contrast[:4]) - 0.1


def test_the_image_text_encoder_learns(pairs: PairSource, tmp_path: Path) -> None:
    trainer = ClipTrainer(Piece(tmp_path, "clip", 9.0), pairs, ClipSettings(steps=40, batch=12))
    losses = [trainer.advance() for _ in range(20)]
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.1


def test_the_image_encoder_starts_from_what_clip_sees(pool: SubjectViews) -> None:
    clip = CLIPModel.from_pretrained(zoo_folder("clip"), torch_dtype=torch.float32).eval()
    pixels = clip_encoder.pixels_of(pool.frames[:, 0])
    with torch.no_grad():
        seen = clip.vision_model(pixel_values=pixels).pooler_output
        started = from_clip(clip).eval()(pixel_values=pixels).last_hidden_state[:, 0]
    assert torch.cosine_similarity(seen, started).mean() > 0.95


def test_the_image_text_encoder_resumes(pairs: PairSource, tmp_path: Path) -> None:
    settings = ClipSettings(steps=5, batch=8)
    whole = ClipTrainer(Piece(tmp_path / "whole", "clip", 9.0), pairs, settings)
    losses = [whole.advance() for _ in range(4)]
    half = ClipTrainer(Piece(tmp_path / "half", "clip", 9.0), pairs, settings)
    half.advance()
    half.checkpoint()
    rest = ClipTrainer(Piece(tmp_path / "half", "clip", 9.0), pairs, settings)
    assert [rest.advance() for _ in range(3)] == losses[1:]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, rest.model.state_dict()[name]), name


def test_the_image_text_encoder_goes_on_from_published_weights(pairs: PairSource, tmp_path: Path) -> None:
    model = clip_encoder.build_clip(pairs.tokenizer).half()
    model.save_pretrained(tmp_path / "clip")
    again = ClipTrainer(Piece(tmp_path / "again", "clip", 9.0), pairs, ClipSettings(batch=8), tmp_path / "clip")
    assert again.step == 0
    for name, value in model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value.to(again.model.state_dict()[name].dtype)), name


def test_a_wider_margin_costs_more_and_one_of_none_is_plain_softmax() -> None:
    torch.manual_seed(0)
    head = MarginSoftmax(5, 8)
    embedding, labels = torch.nn.functional.normalize(torch.randn(6, 8), dim=1), torch.tensor([0, 1, 2, 3, 4, 0])
    cosine = embedding @ torch.nn.functional.normalize(head.directions, dim=1).T
    plain = torch.nn.functional.cross_entropy(24.0 * cosine, labels)
    losses = [head(embedding, labels, margin).item() for margin in (0.0, 0.1, 0.3)]
    assert losses[0] == pytest.approx(plain.item(), abs=1e-3)
    assert losses[0] < losses[1] < losses[2]


def test_training_subjects_are_the_worlds_and_twins_differ() -> None:
    subjects = training_subjects(1, 5, 5)
    shapes, creatures, twins = subjects[:-10], subjects[-10:-5], subjects[-5:]
    assert len(shapes) == 288
    assert not {(one.shape, one.colour, one.texture) for one in shapes} & HELD_OUT_TRIPLES
    assert all(twin != creature and twin.kind == "creature" for twin, creature in zip(twins, creatures, strict=True))


def test_a_pose_is_the_motions_own_moment() -> None:
    scene = sample_scene(3, 11, SceneMix(two_share=0.0, creature_share=1.0, free_motion_share=1.0))
    subject = scene.subjects[0]
    moving = subject_track(scene, subject)
    for frame in (0, 5, 12):
        still = replace(subject, motion=posed(subject.motion, frame))
        shown = subject_track(replace(scene, subjects=(still,), num_frames=1), still)
        near = 1.0 if scene.camera.name != "zoom in" else None
        for name in ("angle", "stretch") if near is None else ("x", "y", "angle", "scale", "stretch"):
            assert getattr(shown, name)[0] == pytest.approx(getattr(moving, name)[frame], abs=1e-3), name


def test_views_of_a_subject_differ_in_everything_but_its_look() -> None:
    subject = training_subjects(1, 1, 0)[-1]
    rng = scene_generator(5, 0)
    scenes = [view_of(subject, rng, 0.5) for _ in range(40)]
    assert len({scene.backdrop.name for scene in scenes}) == 8
    assert {scene.light for scene in scenes} == {"day", "dusk", "night"}
    assert {scene.subjects[0].accessory for scene in scenes} == {"none", "hat", "scarf", "glasses", "balloon"}
    assert {scene.subjects[0].parts for scene in scenes} == {subject.parts}
    assert render(scenes[0]).frames.shape == (1, 64, 64, 3)


def test_masks_are_varied_but_never_lost(pool: SubjectViews) -> None:
    masks = torch.from_numpy(pool.masks[:, 0]).float()
    shown, boxes = varied_masks(masks, scene_generator(1, 0))
    again = varied_masks(masks, scene_generator(1, 0))
    assert torch.equal(shown, again[0]) and torch.equal(boxes, again[1])
    assert shown.flatten(1).any(dim=1).all() and torch.isfinite(boxes).all()
    assert 0 < (shown == 1.0).all(dim=(1, 2)).sum() < len(masks)


def test_verification_counts_pairs_and_keeps_the_rate() -> None:
    looks = np.random.default_rng(0).standard_normal((40, 3, 16))
    looks /= np.linalg.norm(looks, axis=-1, keepdims=True)
    chance = verified(looks)
    assert chance.genuine.shape == (40, 3) and chance.impostor.shape == (40, 39)
    assert (chance.impostor >= chance.threshold).mean() == pytest.approx(0.01, abs=0.002)
    assert chance.record()["value"] < 0.1
    looks[:, 1:] = looks[:, :1]
    assert verified(looks).record() == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 120}


def test_published_parts_are_what_the_stock_loaders_take(pool: SubjectViews, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_vit()
    image_encoder.publish(model, tmp_path / "image")
    assert isinstance(AutoModel.from_pretrained(tmp_path / "image"), ViTModel)
    assert AutoImageProcessor.from_pretrained(tmp_path / "image").size["height"] == 64
    frames = pool.frames[:3, 0]
    assert VitEncoder(tmp_path / "image").frames(frames).shape == (3, 128)
    piece = Piece(tmp_path / "work", "identity", 0.0)
    steps = identity_encoder.train(piece, pool, _IDENTITY, tmp_path / "identity")
    encoder = CropIdentityEncoder(tmp_path / "identity")
    assert (steps, encoder.config.embedding) == (0, 64)
    assert encoder.config.threshold > 0


def test_the_published_identity_encoder_tells_unseen_subjects_apart() -> None:
    figures = identity_figures(zoo_folder("identity"), creatures=28)
    assert figures["identity_tar"]["value"] > 0.93
    assert figures["identity_tar_dressed"]["value"] > 0.88


def test_the_published_image_encoder_finds_unseen_subjects_again() -> None:
    assert image_encoder_figures(zoo_folder("image"), groups=2)["image_top1"]["value"] > 0.55
