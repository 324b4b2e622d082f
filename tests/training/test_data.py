"""Encoding once: frame sets, windows, text with masked variants, and their files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.errors import InputError
from pipeline_lib.training.data import PriorData, TrainingData
from pipeline_lib.training.encode import (
    EncodingSettings,
    choose_frames,
    encode_training_data,
    to_frames,
    to_pixels,
    window_starts,
)
from pipeline_lib.training.text import TokenDropSettings, draw_hidden, with_learned
from tests.training.conftest import CAPTION, DROP, clip_of, moving_square


def test_frames_and_pixels_are_inverse():
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    pixels = to_pixels(frames)
    assert pixels.shape == (1, 3, 3, 8, 8)
    assert float(pixels.min()) >= -1
    assert np.array_equal(to_frames(pixels), frames)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=3), st.integers(0, 50))
def test_the_set_is_spread_without_repeats_and_held_out_frames_are_others(lengths, count):
    used, held_out = choose_frames(lengths, count)
    total = sum(lengths)
    assert len(used) == (total if count == 0 else min(count, total))
    assert len(set(used)) == len(used)
    assert not set(used) & set(held_out)
    assert len(held_out) <= 4


@given(st.integers(5, 200), st.integers(1, 5))
def test_windows_fit_and_reach_both_ends(length, window):
    starts = window_starts(length, window)
    assert starts[0] == 0
    assert starts[-1] == length - window
    assert len(starts) == min(16, length - window + 1)


def test_a_clip_shorter_than_a_window_is_an_input_error():
    with pytest.raises(InputError, match="shorter"):
        window_starts(4, 5)


def test_encoded_latents_are_the_bases_own(base, data):
    frames = moving_square(7)
    torch.testing.assert_close(data.windows.latents[0:1], base.encode_video(to_pixels(frames[:5])))
    torch.testing.assert_close(data.frames.latents[0:1], base.encode_video(to_pixels(frames[:1])))
    assert len(data.windows) == 3
    assert len(data.frames) == 4
    assert len(data.held_out_frames) == 3


def test_prompts_static_for_frames_and_full_for_clips(base, data):
    v, u = base.sentinel(0), base.sentinel(1)
    assert data.frame_text.prompts == (f"a {v} dog, red, on the beach",)
    assert data.clip_text.prompts == (f"a {v} dog, red, {u} running, on the beach",)


def test_variants_hide_tokens_but_never_all_and_the_first_is_whole(base, data):
    text = data.clip_text
    assert len(text.conditioning) == DROP.variants
    whole = base.compact(base.encode_text([text.prompts[0]]))
    row = text.conditioning.take([0])
    torch.testing.assert_close(base_text(row), base_text(whole))
    different = [v for v in range(1, 5) if not torch.equal(base_text(text.conditioning.take([v])), base_text(row))]
    assert different


def base_text(conditioning):
    return conditioning.tensors["text"]


@given(st.integers(1, 30), st.floats(0, 1), st.integers(0, 1000))
def test_never_all_tokens_are_hidden(count, probability, seed):
    hidden = draw_hidden(count, probability, torch.Generator().manual_seed(seed))
    assert len(hidden) < count
    assert all(0 <= at < count for at in hidden)


def test_a_learned_vector_sits_at_its_word_only_and_learns(base, data):
    vector = torch.nn.Parameter(torch.full((24,), 7.0))
    rows = [data.frame_text.row(0)]
    plain = base_text(data.frame_text.conditioning.take(rows))
    put = base_text(with_learned(base, data.frame_text, rows, {"subject": vector}))
    changed = (put != plain).any(-1)[0].nonzero().flatten().tolist()
    assert tuple(changed) == data.frame_text.learned["subject"][0]
    assert len(changed) == 1
    put.sum().backward()
    assert torch.equal(vector.grad, torch.ones(24))


def test_training_data_survives_its_files(data, tmp_path):
    data.save(tmp_path)
    again = TrainingData.load(tmp_path)
    assert torch.equal(again.windows.latents, data.windows.latents)
    assert torch.equal(again.held_out_frames.prompt, data.held_out_frames.prompt)
    assert again.clip_text.learned == data.clip_text.learned
    assert torch.equal(base_text(again.clip_text.conditioning), base_text(data.clip_text.conditioning))


def test_a_prior_set_survives_its_files_and_has_frames_and_clips(prior, tmp_path):
    prior.save(tmp_path)
    again = PriorData.load(tmp_path)
    assert torch.equal(again.clips.latents, prior.clips.latents)
    assert len(again.frames) == 6
    assert again.frames.latents.shape[2] == 1
    assert all("dog" in prompt for prompt in again.text.prompts)
    assert len(set(again.text.prompts)) == 3


def test_images_give_frames_and_no_windows(base):
    settings = EncodingSettings(num_frames=0, drop=TokenDropSettings(probability=0, variants=1), subject="zwx dog")
    data = encode_training_data(base, [clip_of(moving_square(3), "images")], [CAPTION], settings)
    assert len(data.frames) == 3
    assert len(data.windows) == 0
    assert len(data.held_out_frames) == 0
