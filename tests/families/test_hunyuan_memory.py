"""HunyuanVideo: what keeps real sizes within memory and fast changes no more than the stock documentation's own way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoPipeline
from torch import Tensor

from pipeline_lib.models.base import Conditioning
from pipeline_lib.models.hunyuan import HunyuanBase
from pipeline_lib.models.load import load_base
from pipeline_lib.models.tiny_hunyuan import tiny_hunyuan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hunyuan(tmp_path_factory.mktemp("hunyuan"))


@pytest.fixture
def base(folder: Path) -> HunyuanBase:
    loaded = load_base(str(folder))
    assert isinstance(loaded, HunyuanBase)
    return loaded


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_large_clips_go_through_the_autoencoder_in_tiles(base: HunyuanBase, folder: Path) -> None:
    pixels = draw(1, 3, 1, 272, 272).tanh()
    tiled = HunyuanVideoPipeline.from_pretrained(folder).vae
    whole = tiled.encode(pixels).latent_dist.mode()
    tiled.enable_tiling()  # as the stock documentation has it
    mode, ours = tiled.encode(pixels).latent_dist.mode(), base.encode_video(pixels)
    torch.testing.assert_close(ours, mode * tiled.config.scaling_factor, atol=1e-5, rtol=0)
    assert not torch.allclose(mode, whole, atol=1e-5)


def masks_seen(base: HunyuanBase, text: Conditioning) -> list[bool]:
    """Whether each block's attention got a mask, in one step forwards and backwards."""
    seen: list[bool] = []

    def look(_attention: Any, _inputs: Any, named: dict[str, Any]) -> None:
        seen.append(named["attention_mask"] is not None)

    handles = [block.attn.register_forward_pre_hook(look, with_kwargs=True) for block in base.blocks()]
    noisy = draw(len(text), 16, 2, 4, 4).requires_grad_()
    base.velocity(noisy, torch.full((len(text),), 0.5), text).square().sum().backward()
    for handle in handles:
        handle.remove()
    return seen


def test_attention_gets_a_mask_only_where_rows_are_padded(base: HunyuanBase) -> None:
    base.set_gradient_checkpointing(True)
    twice = 2 * len(base.blocks())
    text = base.compact(base.encode_text(["a dog", "a dog running along the beach"]))
    assert masks_seen(base, text) == [True] * twice
    alike = base.compact(text.take([1, 1]))
    assert masks_seen(base, alike) == [False] * twice
    noisy, sigma = draw(2, 16, 2, 4, 4), torch.tensor([0.3, 0.8])
    with torch.no_grad():
        unmasked = base.velocity(noisy, sigma, alike)
        masked = base.velocity(noisy, sigma, base.encode_text(["a dog running along the beach"] * 2))
    torch.testing.assert_close(unmasked, masked, atol=1e-5, rtol=0)
