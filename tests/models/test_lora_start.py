"""An adapter that starts from a LoRA is, before its first step, the model with that LoRA on it."""

from __future__ import annotations

import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.models.adapter import Adapter, AdapterSettings
from pipeline_lib.models.lora_start import energy_lost, reduced
from pipeline_lib.models.triple import Basis
from pipeline_lib.models.wan import WanBase


def random_pair(rank: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rank, 24, generator=draw), torch.randn(20, rank, generator=draw)


def test_a_larger_rank_is_cut_where_least_is_lost() -> None:
    down, up = random_pair(6)
    small_down, small_up = reduced(down, up, 4)
    u, values, v = torch.linalg.svd((up @ down).double())
    best = (u[:, :4] * values[:4]) @ v[:4]
    torch.testing.assert_close((small_up @ small_down).double(), best, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(small_down.norm(), small_up.norm())
    lost = float(values[4:].square().sum() / values.square().sum())
    assert energy_lost({"a": (down, up)}, 4) == pytest.approx(lost, rel=1e-4)


def test_a_smaller_rank_is_kept_as_it_is() -> None:
    down, up = random_pair(3)
    assert reduced(down, up, 3) == (down, up)
    assert energy_lost({"a": (down, up)}, 3) == energy_lost({}, 3) == 0.0


@pytest.mark.parametrize("zero", ["basis", "coefficients"])
@pytest.mark.parametrize("basis", ["output", "input"])
def test_the_product_is_the_files_and_all_of_the_rank_learns(base: WanBase, basis: Basis, zero: str) -> None:
    settings = AdapterSettings(
        rank=4, targets=base.spec.lora_targets, basis=basis, zero_factor="basis" if zero == "basis" else "coefficients"
    )
    adapter = Adapter.attach(base.transformer, settings, 0)
    fresh = {path: pair[0].clone() for path, pair in adapter.triple().merged().items()}
    path = "blocks.1.attn1.to_q"
    down, up = torch.randn(3, 24), torch.randn(24, 3)
    adapter.begin_with({path: (down, up)})
    for name, (a, b) in adapter.triple().merged().items():
        torch.testing.assert_close(b @ a, up @ down if name == path else torch.zeros(b.shape[0], a.shape[1]))
        assert name == path or torch.equal(a, fresh[name])
    columns = [adapter.factors(kind)[path] for kind in ("basis", "coefficients")]
    spare = [factor[3] if factor.shape[0] == 4 else factor[:, 3] for factor in columns]
    assert [bool(part.any()) for part in spare] == ([False, True] if zero == "basis" else [True, False])
    assert adapter.basis_change() == 0.0
    adapter.detach()


def test_layers_that_are_not_trained_are_named_and_nothing_stays_behind(base: WanBase) -> None:
    adapter = Adapter.attach(base.transformer, AdapterSettings(rank=4, targets=("attn1.to_q",)), 0)
    with pytest.raises(InputError, match=r"blocks\.0\.attn1\.to_k"):
        adapter.begin_with({"blocks.0.attn1.to_k": random_pair(2)})
    assert not any("lora_" in name for name, _ in base.transformer.named_modules())
