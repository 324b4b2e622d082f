"""The Wan base beyond parity: hidden tokens, learned rows, lazy parts, limits of the autoencoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.models.diffusers_base import HIDDEN_SENTINEL
from pipeline_lib.models.load import load_base
from pipeline_lib.models.tiny import tiny_wan
from pipeline_lib.models.wan import WanBase

PROMPT = "a red dog running on the beach"


def word_positions(base: WanBase, prompt: str, word: str) -> list[int]:
    start = prompt.index(word)
    spans = base.token_spans(prompt)
    return [index for index, (low, high) in enumerate(spans) if low < start + len(word) and high > start]


def test_spans_cover_the_words(base: WanBase) -> None:
    spans = base.token_spans(PROMPT)
    assert [PROMPT[start:stop] for start, stop in spans] == PROMPT.split()
    assert len(spans) == int(base.encode_text([PROMPT]).tensors["length"][0]) - 1
    assert base.token_spans("") == []


@pytest.mark.parametrize("prompt", ["  a   dog &amp; cat ", "a “ dog ” \n cat", "a <extra_id_0> dog cat, 日本 dog"])
def test_spans_are_of_the_prompt_as_given(base: WanBase, prompt: str) -> None:
    pieces = [prompt[start:stop].strip() for start, stop in base.token_spans(prompt)]
    for word in ("a", "dog", "cat"):
        assert word in pieces
    starts = [start for start, _ in base.token_spans(prompt)]
    assert starts == sorted(starts)
    assert len(starts) == int(base.encode_text([prompt]).tensors["length"][0]) - 1


def test_hidden_tokens_keep_positions(base: WanBase) -> None:
    sentinel = base.sentinel(HIDDEN_SENTINEL)
    (position,) = word_positions(base, PROMPT, "dog")
    hidden = base.encode_text([PROMPT], hidden=[[position]])
    whole = base.encode_text([PROMPT])
    assert torch.equal(hidden.tensors["length"], whole.tensors["length"])
    length = int(whole.tensors["length"][0])
    differs = (hidden.tensors["text"] != whole.tensors["text"]).any(dim=-1)[0]
    assert bool(differs[position]) and not bool(differs[length:].any())
    # Independent route to the same ids: the sentinel written into the prompt.
    tokenizer = base.pipeline().tokenizer
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    ids[0, position] = tokenizer.convert_tokens_to_ids(sentinel)
    with torch.no_grad():
        expected = base.pipeline().text_encoder(ids).last_hidden_state[0]
    torch.testing.assert_close(hidden.tensors["text"][0, :length], expected, atol=1e-5, rtol=0)


def test_hidden_is_per_prompt(base: WanBase) -> None:
    both = base.encode_text([PROMPT, PROMPT, "a cat"], hidden=[[], [2], []])
    alone = base.encode_text([PROMPT])
    torch.testing.assert_close(both.tensors["text"][:1], alone.tensors["text"], atol=1e-6, rtol=0)
    assert not torch.allclose(both.tensors["text"][0], both.tensors["text"][1], atol=1e-3)


def test_replaced_rows_and_their_gradient(base: WanBase) -> None:
    conditioning = base.compact(base.encode_text([PROMPT, "a cat", PROMPT]))
    vector = torch.randn(24, requires_grad=True)
    replaced = base.replace_rows(conditioning, [[1, 3], [], [0]], vector)
    text, before = replaced.tensors["text"], conditioning.tensors["text"]
    assert torch.equal(text[0, 1], vector) and torch.equal(text[0, 3], vector) and torch.equal(text[2, 0], vector)
    untouched = torch.ones(text.shape[:2], dtype=torch.bool)
    untouched[0, 1] = untouched[0, 3] = untouched[2, 0] = False
    assert torch.equal(text[untouched], before[untouched])
    weight = torch.randn_like(text)
    (gradient,) = torch.autograd.grad((text * weight).sum(), vector)
    torch.testing.assert_close(gradient, weight[0, 1] + weight[0, 3] + weight[2, 0])


def test_a_learned_row_gets_gradient_through_the_model(base: WanBase) -> None:
    conditioning = base.compact(base.encode_text([PROMPT]))
    vector = torch.zeros(24, requires_grad=True)
    noisy, sigma = torch.randn(1, 16, 2, 4, 4), torch.tensor([0.5])
    velocity = base.velocity(noisy, sigma, base.replace_rows(conditioning, [[2]], vector))
    (gradient,) = torch.autograd.grad(velocity.square().mean(), vector)
    assert torch.isfinite(gradient).all() and gradient.norm() > 0


def test_parts_are_loaded_when_used(tiny_folder: Path) -> None:
    base = load_base(str(tiny_folder))
    assert isinstance(base, WanBase)
    conditioning = base.encode_text([PROMPT])
    latents = base.encode_video(torch.zeros(1, 3, 5, 32, 32))
    assert base._padding is None
    base.free_encoders()
    calls = base.encoder_calls
    assert calls == 2
    base.velocity(latents, torch.tensor([0.5]), conditioning)
    base.token_spans(PROMPT)
    base.blocks()
    assert not {"vae", "text_encoder"} & set(base._parts)
    assert base.encoder_calls == calls
    again = base.encode_text([PROMPT])
    assert torch.equal(again.tensors["text"], conditioning.tensors["text"])
    assert base.encoder_calls == calls + 1


def test_stock_calls_count_as_encoder_calls(base: WanBase) -> None:
    base.pipeline().encode_prompt("a dog", do_classifier_free_guidance=True)
    assert base.encoder_calls == 2


@pytest.mark.parametrize("frames", [2, 4, 6])
def test_frames_that_would_be_dropped_are_refused(base: WanBase, frames: int) -> None:
    with pytest.raises(InputError, match=f"{frames} frames"):
        base.encode_video(torch.zeros(1, 3, frames, 32, 32))


def test_without_temporal_compression_frames_still_come_in_fours(tmp_path: Path) -> None:
    base = load_base(str(tiny_wan(tmp_path, temporal_factor=1)))
    assert base.encode_video(torch.zeros(1, 3, 5, 32, 32)).shape == (1, 16, 5, 4, 4)
    assert base.decode_video(torch.zeros(1, 16, 5, 4, 4)).shape == (1, 3, 5, 32, 32)
    with pytest.raises(InputError, match="7 frames"):
        base.encode_video(torch.zeros(1, 3, 7, 32, 32))


def test_clips_do_not_see_their_neighbours(base: WanBase) -> None:
    pixels = torch.rand(2, 3, 5, 32, 32) * 2 - 1
    assert torch.equal(base.encode_video(pixels)[1:], base.encode_video(pixels[1:]))


def test_sentinels(base: WanBase) -> None:
    assert base.sentinel(0) == "<extra_id_0>"
    with pytest.raises(InputError, match="extra_id_999"):
        base.sentinel(999)


def test_half_precision_keeps_the_callers_dtype(tiny_folder: Path) -> None:
    base = load_base(str(tiny_folder), dtype=torch.bfloat16)
    conditioning = base.encode_text([PROMPT])
    assert conditioning.tensors["text"].dtype == torch.float32
    noisy = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    velocity = base.velocity(noisy, torch.tensor([0.5]), conditioning)
    assert velocity.dtype == torch.float32
    full = load_base(str(tiny_folder)).velocity(noisy, torch.tensor([0.5]), conditioning)
    assert (velocity - full).abs().max() < 0.05 * full.abs().max()
