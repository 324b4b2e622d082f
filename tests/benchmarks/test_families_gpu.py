"""The families' benchmark where it is meant to run: tiny folders, every arm."""

from __future__ import annotations

import pytest
import torch

from benchmarks.arms import Options
from benchmarks.families import measure
from benchmarks.family_sizes import SIZES

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("name", SIZES)
def test_every_family_is_measured_on_the_device(name: str) -> None:
    lines = measure(SIZES[name], Options(device=torch.device("cuda"), steps=2, rank=2, tiny=True, compiled=True))
    ours, bare, usual = lines
    assert all(line["seconds"] > 0 for line in lines)
    assert usual["peak_gigabytes"] >= bare["peak_gigabytes"], "the encoders are there too"
    assert "note" not in ours
