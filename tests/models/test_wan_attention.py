"""Collapsed padding equals the stock cross-attention over 512 rows: values, gradients, recomputation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pipeline_lib.models.wan import WanBase
from pipeline_lib.models.wan_attention import STAND_INS, collapse_padding, padding_bias, rows_needed

PROMPTS = ["", "a red dog running on the beach", "a cat in snow, " * 6]
NOISY = torch.randn(3, 16, 2, 4, 4, generator=torch.Generator().manual_seed(1))
SIGMA = torch.tensor([0.1, 0.5, 0.95])


def parameters(base: WanBase) -> list[Tensor]:
    return [parameter.requires_grad_(True) for parameter in base.transformer.parameters()]


@pytest.mark.parametrize("compacted", [False, True])
def test_values_and_gradients_equal_the_stock_model(base: WanBase, compacted: bool) -> None:
    full = base.encode_text(PROMPTS)
    noisy = NOISY.clone().requires_grad_(True)
    wanted = [noisy, *parameters(base)]
    base.padding.enabled = False
    stock = base.transformer(noisy, SIGMA * 1000, full.tensors["text"], return_dict=False)[0]
    expected = torch.autograd.grad(stock.square().sum(), wanted)
    base.padding.enabled = True
    ours = base.velocity(noisy, SIGMA, base.compact(full) if compacted else full)
    torch.testing.assert_close(ours, stock, atol=1e-5, rtol=0)
    for gradient, reference in zip(torch.autograd.grad(ours.square().sum(), wanted), expected, strict=True):
        torch.testing.assert_close(gradient, reference, atol=1e-4 * max(1.0, float(reference.abs().max())), rtol=0)


def test_text_that_is_compacted_is_much_shorter(base: WanBase) -> None:
    compact = base.compact(base.encode_text(PROMPTS))
    longest = int(compact.tensors["length"].max())
    assert longest + STAND_INS <= compact.tensors["text"].shape[1] <= longest + STAND_INS + 8


def test_the_stock_call_is_collapsed_too(base: WanBase) -> None:
    text = base.encode_text(PROMPTS).tensors["text"]
    collapsed = base.transformer(NOISY, SIGMA * 1000, encoder_hidden_states=text, return_dict=False)[0]
    base.padding.enabled = False
    stock = base.transformer(NOISY, SIGMA * 1000, encoder_hidden_states=text, return_dict=False)[0]
    torch.testing.assert_close(collapsed, stock, atol=1e-5, rtol=0)
    assert not torch.equal(collapsed, stock)  # it really took the other way


def test_text_without_padding_is_stock_bit_for_bit(base: WanBase) -> None:
    text = torch.randn(3, 512, 24)
    base.velocity(NOISY, SIGMA, base.encode_text(PROMPTS))  # leaves no bias behind
    ours = base.transformer(NOISY, SIGMA * 1000, encoder_hidden_states=text, return_dict=False)[0]
    base.padding.enabled = False
    stock = base.transformer(NOISY, SIGMA * 1000, encoder_hidden_states=text, return_dict=False)[0]
    assert torch.equal(ours, stock)


def test_an_error_leaves_no_bias_behind(base: WanBase) -> None:
    with pytest.raises(RuntimeError):
        base.velocity(NOISY[:, :3], SIGMA, base.encode_text(PROMPTS))
    text = torch.randn(3, 512, 24)
    base.transformer(NOISY, SIGMA * 1000, encoder_hidden_states=text, return_dict=False)


def test_disabled_it_is_the_stock_model_on_compacted_text(base: WanBase) -> None:
    full = base.encode_text(PROMPTS)
    base.padding.enabled = False
    stock = base.transformer(NOISY, SIGMA * 1000, full.tensors["text"], return_dict=False)[0]
    assert torch.equal(base.velocity(NOISY, SIGMA, base.compact(full)), stock)


def test_a_full_prompt_is_left_alone(base: WanBase) -> None:
    conditioning = base.encode_text(["a dog and a cat " * 200])
    assert int(conditioning.tensors["length"][0]) == 512
    text, bias = collapse_padding(conditioning.tensors["text"], conditioning.tensors["length"], 512)
    assert bias is None and text.shape[1] == 512


def test_recomputation_uses_the_bias_of_its_own_forward(base: WanBase) -> None:
    """Two forward passes of different lengths before one backward pass, as with prior preservation."""
    wanted = parameters(base)
    base.transformer.train()
    short, long = base.encode_text(PROMPTS[:1] * 3), base.encode_text(PROMPTS[2:] * 3)

    def gradients(checkpointing: bool) -> tuple[Tensor, ...]:
        base.set_gradient_checkpointing(checkpointing)
        loss = sum(base.velocity(NOISY, SIGMA, text).square().sum() for text in (short, long))
        assert isinstance(loss, Tensor)
        return torch.autograd.grad(loss, wanted)

    for recomputed, kept in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(recomputed, kept, atol=1e-6 * max(1.0, float(kept.abs().max())), rtol=0)


@given(
    length=st.integers(1, 505),
    extra=st.integers(0, 20),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_the_stand_ins_weigh_as_much_as_the_rows_they_stand_for(length: int, extra: int, dtype: torch.dtype) -> None:
    rows = min(512, length + STAND_INS + extra)
    bias = padding_bias(torch.tensor([length]), rows, 512, dtype)
    assert bias.dtype == dtype and bias.shape == (1, 1, 1, rows)
    weights = bias.double().exp().flatten()
    assert torch.equal(weights[:length], torch.ones(length, dtype=torch.float64))
    assert float(weights[length:].sum()) == pytest.approx(512 - length, rel=1e-5)


@given(longest=st.integers(1, 512))
def test_rows_needed_leaves_room_or_keeps_all(longest: int) -> None:
    rows = rows_needed(longest, 512)
    assert rows == 512 or rows >= longest + STAND_INS
