"""On a GPU: guests come and go, and leave no bytes behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline_lib.models.visits import Visits

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@torch.no_grad()
def test_weights_come_from_the_host_and_go_back_to_it() -> None:
    visits = Visits(torch.device("cuda"))
    guests = [nn.Linear(1024, 1024, bias=False).requires_grad_(False) for _ in range(2)]
    home = [guest.weight.data_ptr() for guest in guests]
    before = torch.cuda.memory_allocated()
    for guest in guests:
        visits.invite(guest)
        guest(torch.ones(1, 1024, device="cuda"))
        assert torch.cuda.memory_allocated() - before < 1.5 * 4 * 1024**2
    assert [guest.weight.device.type for guest in guests] == ["cpu", "cuda"]
    visits.leave()
    assert [guest.weight.data_ptr() for guest in guests] == home
    assert torch.cuda.memory_allocated() - before < 1024**2
