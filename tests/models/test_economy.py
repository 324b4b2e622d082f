"""Ways to keep a denoiser: alone and together they give the same velocity."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch

from pipeline_lib.models.economy import Economy, Storage
from pipeline_lib.models.load import load_base

NOISY = torch.randn(2, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0))
SIGMA = torch.tensor([0.3, 0.9])


@pytest.mark.parametrize(("storage", "swapped", "compiled"), list(product(("full", "fp8"), (0, 1, 9), (False, True))))
@torch.no_grad()
def test_the_velocity_stays(tiny_folder: Path, storage: Storage, swapped: int, compiled: bool) -> None:
    plain = load_base(str(tiny_folder))
    text = plain.encode_text(["a dog", "a cat"])
    expected = plain.velocity(NOISY, SIGMA, text)
    kept = load_base(str(tiny_folder), economy=Economy(storage=storage, swapped_blocks=swapped, compiled=compiled))
    found = kept.velocity(NOISY, SIGMA, text)
    if storage == "full" and not compiled:
        assert torch.equal(found, expected)
    tolerance = 0.05 if storage == "fp8" else 1e-5
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    assert (not torch.allclose(found, expected, atol=1e-4)) == (storage == "fp8")
