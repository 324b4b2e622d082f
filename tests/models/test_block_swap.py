"""Blocks that visit the device one at a time compute what they always did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline_lib.models.adapter import Adapter, AdapterSettings
from pipeline_lib.models.block_swap import SwappedBlocks
from pipeline_lib.models.economy import Economy
from pipeline_lib.models.load import load_base
from pipeline_lib.models.lora_export import write_lora
from pipeline_lib.models.wan import WanBase
from tests.models.factors import random_triple

CPU = torch.device("cpu")


@pytest.fixture
def base(tiny_folder: Path) -> WanBase:
    loaded = load_base(str(tiny_folder))
    assert isinstance(loaded, WanBase)
    return loaded


def gradients(base: WanBase, adapter: Adapter) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, 16, 2, 4, 4, generator=draw)
    for factor in adapter.factors("basis").values():
        factor.data = torch.randn(factor.shape, generator=draw)
        factor.grad = None
    for factor in adapter.factors("coefficients").values():
        factor.grad = None
    text = base.encode_text(["a dog", "a cat"])
    base.velocity(noisy, torch.tensor([0.4, 0.9]), text).square().sum().backward()
    live = {**adapter.factors("basis"), **{f"{k}.c": v for k, v in adapter.factors("coefficients").items()}}
    return {name: factor.grad.clone() for name, factor in live.items() if factor.grad is not None}


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_the_same_bits(base: WanBase, recompute: bool) -> None:
    base.set_gradient_checkpointing(recompute)
    settings = AdapterSettings(rank=2, targets=base.spec.lora_targets)
    adapter = Adapter.attach(base.transformer, settings, 0)
    expected = gradients(base, adapter)
    swapped = SwappedBlocks(base.blocks(), CPU)
    found = gradients(base, adapter)
    assert expected.keys() == found.keys() and len(found) == 2 * 2 * len(base.spec.lora_targets)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    # Two blocks: both in the forward pass; backwards the last one is still there, the first one comes again.
    assert swapped.arrivals == 3
    swapped.remove()
    again = gradients(base, adapter)
    assert all(torch.equal(again[name], value) for name, value in expected.items())


def test_no_more_than_asked_are_there_whenever_one_computes() -> None:
    blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(5)).requires_grad_(False)
    swapped = SwappedBlocks(list(blocks), CPU)
    seen: list[tuple[int, int | None]] = []

    def watch(index: int) -> Any:
        return lambda *_: seen.append((index, swapped.present))

    for index, block in enumerate(blocks):
        block[0].register_forward_pre_hook(watch(index))
        block[1].register_full_backward_hook(watch(index))
    hidden = torch.randn(3, 4, requires_grad=True)
    for block in blocks:
        hidden = block(hidden)
    hidden.sum().backward()
    assert seen == [(index, index) for index in (0, 1, 2, 3, 4, 4, 3, 2, 1, 0)]


def test_a_block_is_one_stretch_of_memory() -> None:
    block = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3)).requires_grad_(False)
    expected = [value.clone() for value in block.parameters()]
    SwappedBlocks([block], CPU)
    for _ in range(2):
        values = list(block.parameters())
        assert len({value.untyped_storage().data_ptr() for value in values}) == 1
        assert all(value.data_ptr() % 16 == 0 for value in values)
        assert all(torch.equal(value, old) for value, old in zip(values, expected, strict=True))
        block(torch.ones(1, 7))


@torch.no_grad()
def test_a_lora_that_is_loaded_later_computes_with_its_block(tiny_folder: Path, tmp_path: Path) -> None:
    noisy, sigma = torch.randn(1, 16, 2, 4, 4), torch.tensor([0.5])
    found = []
    for count in (0, 2):
        base = load_base(str(tiny_folder), economy=Economy(swapped_blocks=count))
        bare = base.velocity(noisy, sigma, base.encode_text(["a dog"]))
        triple = random_triple(base.experts()[0][1], base.spec.lora_targets)
        pipeline: Any = base.pipeline()
        pipeline.load_lora_weights(write_lora(triple, tmp_path / f"{count}.safetensors", family="wan", provenance={}))
        found.append(base.velocity(noisy, sigma, base.encode_text(["a dog"])))
        assert not torch.allclose(found[-1], bare)
    assert torch.equal(*found)


def test_what_learns_stays() -> None:
    block = nn.Linear(3, 3)
    block.bias.requires_grad_(False)
    weight = block.weight.data
    swapped = SwappedBlocks([block], CPU)
    block(torch.ones(1, 3)).sum().backward()
    assert block.weight.data is weight or block.weight.data_ptr() == weight.data_ptr()
    assert swapped.arrivals == 1 and block.weight.grad is not None
