"""The segmenter's recipe: words and masks, its own forward, resuming; the published weights' floor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import CLIPSegForImageSegmentation

from pipeline_lib.pocket.clip_encoder import pixels_of
from pipeline_lib.pocket.pieces import Piece
from pipeline_lib.pocket.segmenter import (
    SegmenterSettings,
    SegmenterTrainer,
    build_processor,
    build_segmenter,
    mask_logits,
    mask_loss,
    publish,
    segmenter_tokenizer,
)
from pipeline_lib.pocket.segmenter_data import Frames, QuerySource, Seen, false_query, true_query
from pipeline_lib.pocket.segmenter_quality import frame_overlap, segmenter_figures
from pipeline_lib.pocket.zoo import zoo_root
from pipeline_lib.world.render import render
from pipeline_lib.world.sampling import SceneMix, sample_scene, scene_generator

TINY = SegmenterSettings(steps=12, batch=4)
NOWHERE = Path("nowhere")


def seen(index: int, pair: bool = False) -> Seen:
    scene = sample_scene(7, index, SceneMix(two_share=1.0 if pair else 0.0))
    clip = render(scene)
    return Seen(scene, clip.frames[:2], clip.masks[:, :2])


@pytest.fixture(scope="module")
def source() -> QuerySource:
    made = QuerySource(NOWHERE)
    made.single, made.paired = [seen(0), seen(1)], [seen(2, pair=True)]
    made.empty = [Seen(replace(sample_scene(7, 3), subjects=()), seen(3).frames, np.zeros((0, 2, 64, 64), bool))]
    return made


def test_true_words_name_their_subject_and_false_ones_none() -> None:
    for index in range(60):
        shown, rng = seen(index, pair=index % 2 == 1), scene_generator(7, index, 1)
        for place, subject in enumerate(shown.scene.subjects):
            query = true_query(subject, rng)
            assert query.names(subject) and query.text
            assert (shown.target(query, 0) >= shown.masks[place, 0]).all()
        other = false_query(shown.scene, rng)
        assert not any(other.names(subject) for subject in shown.scene.subjects), other
        assert not shown.target(other, 0).any()


def test_batches_are_a_function_of_the_step(source: QuerySource) -> None:
    frames, texts, masks = source.batch(3, 16)
    again = source.batch(3, 16)
    assert frames.shape == (16, 64, 64, 3) and masks.shape == (16, 64, 64)
    assert np.array_equal(frames, again[0]) and texts == again[1] and np.array_equal(masks, again[2])
    assert texts != source.batch(4, 16)[1]


@torch.no_grad()
def test_training_computes_what_the_class_computes(source: QuerySource) -> None:
    torch.manual_seed(0)
    processor = build_processor()
    model = build_segmenter(len(segmenter_tokenizer())).eval()
    frames, texts, _ = source.batch(0, 4)
    given = processor(text=texts, images=list(frames), padding=True, return_tensors="pt")
    assert torch.allclose(given.pixel_values, pixels_of(frames), atol=1e-5)
    own = mask_logits(model, pixels_of(frames), given.input_ids, given.attention_mask)
    assert torch.allclose(own, model(**given).logits, atol=1e-5)
    assert own.std() < 2 and own.mean() < -1


def test_loss_of_a_right_answer_is_small() -> None:
    masks = torch.zeros(2, 8, 8)
    masks[0, 2:5, 2:6] = 1
    right, wrong = (masks * 2 - 1) * 20, (1 - masks * 2) * 20
    assert mask_loss(right, masks) < 0.01
    assert mask_loss(wrong, masks) > 1


class OneBatch(QuerySource):
    """The same batch at every step."""

    def batch(self, step: int, size: int) -> tuple[Frames, list[str], npt.NDArray[np.float32]]:
        return super().batch(0 * step, size)


def test_training_learns(source: QuerySource, tmp_path: Path) -> None:
    same = OneBatch(NOWHERE)
    same.single, same.paired, same.empty = source.single, source.paired, source.empty
    fast = SegmenterSettings(steps=100, batch=4, matrix_rate=0.01, other_rate=0.01)
    trainer = SegmenterTrainer(Piece(tmp_path, "s", 1.0), same, fast, NOWHERE)
    losses = [trainer.advance() for _ in range(16)]
    assert losses[-1] < 0.85 * losses[0]


def test_training_goes_on_as_if_it_had_not_stopped(source: QuerySource, tmp_path: Path) -> None:
    whole = SegmenterTrainer(Piece(tmp_path / "whole", "s", 1.0), source, TINY, NOWHERE)
    losses = [whole.advance() for _ in range(8)]
    half = SegmenterTrainer(Piece(tmp_path / "half", "s", 1.0), source, TINY, NOWHERE)
    half.advance()
    half.save()
    rest = SegmenterTrainer(Piece(tmp_path / "half", "s", 1.0), source, TINY, NOWHERE)
    assert rest.step == 1
    assert [rest.advance() for _ in range(7)] == losses[1:]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, rest.model.state_dict()[name]), name


def test_published_bytes_are_the_same_each_time(source: QuerySource, tmp_path: Path) -> None:
    trainer = SegmenterTrainer(Piece(tmp_path, "s", 1.0), source, TINY, NOWHERE)
    for name in ("one", "two"):
        publish(trainer.average.values, tmp_path / name)
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()
    loaded = CLIPSegForImageSegmentation.from_pretrained(tmp_path / "one", dtype=torch.float32)
    for name, value in trainer.average.values.items():
        assert torch.allclose(loaded.get_parameter(name), value, atol=2e-3), name


def test_overlap() -> None:
    one, two = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert frame_overlap(one, two) == 1
    one[:2], two[1:3] = True, True
    assert frame_overlap(one, two) == pytest.approx(1 / 3)


def test_the_published_segmenter_keeps_its_floor() -> None:
    figures = segmenter_figures(zoo_root() / "segmenter", count=24)
    assert figures["n"] == 24
    assert isinstance(figures["value"], float) and figures["value"] > 0.68
