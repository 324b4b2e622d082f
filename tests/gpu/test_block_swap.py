"""On a GPU: blocks that visit it leave it again."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline_lib.models.block_swap import SwappedBlocks

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@torch.no_grad()
def test_weights_leave_the_gpu() -> None:
    device = torch.device("cuda")
    blocks = [nn.Linear(1024, 1024, bias=False, device=device).requires_grad_(False) for _ in range(8)]
    hidden = torch.randn(4, 1024, device=device)
    expected = hidden
    for block in blocks:
        expected = block(expected)
    before = torch.cuda.memory_allocated()
    SwappedBlocks(blocks, device)
    found = hidden
    for block in blocks:
        found = block(found)
    assert torch.equal(found, expected)
    assert torch.cuda.memory_allocated() < before - 6 * 4 * 1024**2


@torch.no_grad()
def test_what_is_put_into_a_block_on_the_host_comes_with_it() -> None:
    device = torch.device("cuda")
    blocks = [nn.Sequential(nn.Linear(8, 8)).requires_grad_(False) for _ in range(2)]
    SwappedBlocks(blocks, device)
    late = nn.Linear(8, 8)
    blocks[0].append(late)
    blocks[0](torch.ones(1, 8, device=device))
    blocks[1](torch.ones(1, 8, device=device))
    assert late.weight.device.type == "cuda"
    assert blocks[0][0].weight.device.type == "cpu" and blocks[0][0].weight.is_pinned()
