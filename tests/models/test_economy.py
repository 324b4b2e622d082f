"""Ways to keep a denoiser: alone and together they give the same velocity."""

from __future__ import annotations

import dataclasses
import logging
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline_lib.errors import ConfigError
from pipeline_lib.models.adapter import Adapter
from pipeline_lib.models.economy import Economy, Storage
from pipeline_lib.models.load import load_base
from pipeline_lib.models.lora_export import check_fit, write_lora
from pipeline_lib.models.nf4 import to_nf4
from tests.models.factors import random_triple

NOISY = torch.randn(2, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0))
SIGMA = torch.tensor([0.3, 0.9])


TOLERANCE: dict[Storage, float] = {"full": 1e-5, "fp8": 0.05, "nf4": 0.15}
needs_nf4 = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="the extra `quantised` is not installed")
STORAGES = ["full", "fp8", pytest.param("nf4", marks=needs_nf4)]


@pytest.mark.parametrize("storage", STORAGES)
@torch.no_grad()
def test_the_velocity_stays(tiny_folder: Path, storage: Storage) -> None:
    plain = load_base(str(tiny_folder))
    text = plain.encode_text(["a dog", "a cat"])
    expected = plain.velocity(NOISY, SIGMA, text)
    for swapped, compiled in ((0, False), (2, False), (1, True)):
        kept = load_base(str(tiny_folder), economy=Economy(storage=storage, swapped_blocks=swapped, compiled=compiled))
        if compiled and storage != "full":
            for block in kept.blocks():
                block.compile(backend="eager")  # traced as before; making machine code once is enough
        found = kept.velocity(NOISY, SIGMA, text)
        if storage == "full" and not compiled:
            assert torch.equal(found, expected)
        torch.testing.assert_close(found, expected, atol=TOLERANCE[storage], rtol=0)
        assert torch.allclose(found, expected, atol=1e-4) == (storage == "full")


def test_bitsandbytes_does_not_tell_everybody_that_it_found_no_kernels() -> None:
    assert not logging.getLogger("bitsandbytes.backends.cpu.ops").isEnabledFor(logging.WARNING)


@needs_nf4
def test_nf4_takes_four_bits_a_weight_and_little_more() -> None:
    block = torch.nn.Sequential(torch.nn.Linear(1024, 512)).requires_grad_(False)
    to_nf4([block], torch.device("cpu"), torch.float32)
    weight = block[0].weight
    kept = [weight, *weight.quant_state.as_dict(packed=True).values()]
    assert sum(value.numel() * value.element_size() for value in kept) * 8 < 4.2 * 1024 * 512


@needs_nf4
@torch.no_grad()
def test_a_lora_loads_on_four_bits(tiny_folder: Path, tmp_path: Path) -> None:
    base = load_base(str(tiny_folder), economy=Economy(storage="nf4", swapped_blocks=1))
    text = base.encode_text(["a dog", "a cat"])
    bare = base.velocity(NOISY, SIGMA, text)
    drawn = random_triple(load_base(str(tiny_folder)).experts()[0][1], base.spec.lora_targets)
    triple = dataclasses.replace(drawn, scale=1.0)  # an adapter's own
    pipeline: Any = base.pipeline()
    check_fit(triple.merged(), pipeline.transformer, "it")
    pipeline.load_lora_weights(write_lora(triple, tmp_path / "lora.safetensors", family="wan", provenance={}))
    loaded = base.velocity(NOISY, SIGMA, text)
    pipeline.unload_lora_weights()
    adapter = Adapter.from_triple(base.experts()[0][1], triple)
    torch.testing.assert_close(base.velocity(NOISY, SIGMA, text), loaded, atol=1e-4, rtol=1e-4)
    adapter.detach()
    assert torch.equal(base.velocity(NOISY, SIGMA, text), bare) and not torch.allclose(bare, loaded)


def test_more_swapped_blocks_than_there_are_is_an_error(tiny_folder: Path) -> None:
    base = load_base(str(tiny_folder), economy=Economy(swapped_blocks=3))
    with pytest.raises(ConfigError, match="got 3; expected at most 2"):
        base.blocks()


def test_without_its_package_nf4_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r"pip install 'mannerism\[quantised\]'"):
        Economy(storage="nf4")
