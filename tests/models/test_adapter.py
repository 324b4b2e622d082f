"""The adapter's identities: at start the base, disabled the base, merged as unmerged, stored as trained."""

from __future__ import annotations

import pytest
import torch

from pipeline_lib.errors import InputError, PipelineError
from pipeline_lib.models.adapter import Adapter, AdapterSettings
from pipeline_lib.models.coefficients import products_dtype
from pipeline_lib.models.load import load_base
from pipeline_lib.models.triple import LayerFactors, LoraTriple


@pytest.fixture
def base(tiny_folder):
    return load_base(str(tiny_folder))


@pytest.fixture
def forward(base):
    draw = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, 16, 2, 4, 4, generator=draw)
    conditioning = base.encode_text(["a red dog", "a cat on the beach"])
    sigma = torch.tensor([0.3, 0.8])

    @torch.no_grad()
    def run():
        return base.velocity(noisy, sigma, conditioning)

    return run


def settings(base, **changes):
    return AdapterSettings(**{"rank": 3, "targets": base.spec.lora_targets, **changes})


def randomise(adapter, seed=0):
    draw = torch.Generator().manual_seed(seed)
    for kind in ("basis", "coefficients", "residual"):
        for factor in adapter.factors(kind).values():
            factor.data.normal_(std=0.2, generator=draw)


@pytest.mark.parametrize("basis", ["output", "input"])
@pytest.mark.parametrize("zero_factor", ["basis", "coefficients"])
def test_at_the_start_it_is_the_base_bit_for_bit(base, forward, basis, zero_factor):
    expected = forward()
    adapter = Adapter.attach(base.transformer, settings(base, basis=basis, zero_factor=zero_factor), seed=0)
    assert torch.equal(forward(), expected)
    zero, other = ("basis", "coefficients") if zero_factor == "basis" else ("coefficients", "basis")
    assert not any(bool(factor.any()) for factor in adapter.factors(zero).values())
    assert all(bool(factor.any()) for factor in adapter.factors(other).values())


@pytest.mark.parametrize("basis", ["output", "input"])
def test_every_identity_holds_with_trained_factors(base, forward, basis):
    plain = forward()
    adapter = Adapter.attach(base.transformer, settings(base, basis=basis), seed=0)
    randomise(adapter)
    stage_one = forward()
    assert not torch.allclose(stage_one, plain, atol=1e-3)
    adapter.begin_residual()
    assert torch.equal(forward(), stage_one), "Stage II starts as Stage I's model"
    randomise(adapter, seed=1)
    trained = forward()
    with adapter.disabled():
        assert torch.equal(forward(), plain)
    adapter.set_strengths(0.0, 0.0)
    torch.testing.assert_close(forward(), plain, rtol=0, atol=0)
    adapter.set_strengths(1.0, 1.0)
    assert torch.equal(forward(), trained)
    adapter.detach()
    assert torch.equal(forward(), plain)


@pytest.mark.parametrize("basis", ["output", "input"])
@pytest.mark.parametrize("strengths", [(1.0, 1.0), (0.4, 1.3), (0.0, 1.0), (0.0, 0.0)])
def test_merged_is_unmerged_at_any_strengths(base, forward, basis, strengths):
    adapter = Adapter.attach(base.transformer, settings(base, basis=basis), seed=0)
    randomise(adapter)
    adapter.begin_residual()
    randomise(adapter, seed=1)
    adapter.set_strengths(*strengths)
    unmerged = forward()
    merged = adapter.triple().merged(*strengths)
    adapter.detach()
    modules = dict(base.transformer.named_modules())
    for path, (down, up) in merged.items():
        assert down.shape[0] == up.shape[1] == 3
        modules[path].weight.data += up @ down
    torch.testing.assert_close(forward(), unmerged, rtol=1e-4, atol=1e-5)


def test_a_triple_survives_its_file_and_gives_the_same_model(base, forward, tmp_path):
    adapter = Adapter.attach(base.transformer, settings(base), seed=0)
    randomise(adapter)
    adapter.begin_residual()
    randomise(adapter, seed=1)
    expected = forward()
    adapter.triple().save(tmp_path / "triple.safetensors", {"run": "x"})
    adapter.detach()
    again = Adapter.from_triple(base.transformer, LoraTriple.load(tmp_path / "triple.safetensors"))
    torch.testing.assert_close(forward(), expected, rtol=0, atol=1e-6)
    assert again.factors("residual")


def test_masks_change_the_forward_and_never_what_is_stored(base, forward):
    adapter = Adapter.attach(base.transformer, settings(base), seed=0)
    randomise(adapter)
    stored, plain = adapter.triple(), forward()
    masks = {path: torch.zeros_like(factor) for path, factor in adapter.factors("coefficients").items()}
    adapter.set_masks("coefficients", masks)
    assert not torch.allclose(forward(), plain, atol=1e-3)
    with adapter.evaluating():
        assert torch.equal(forward(), plain)
    now = adapter.triple()
    assert all(torch.equal(now.layers[path].coefficients, stored.layers[path].coefficients) for path in stored.layers)


def test_a_zero_basis_cannot_begin_a_residual(base):
    adapter = Adapter.attach(base.transformer, settings(base), seed=0)
    with pytest.raises(PipelineError, match="train Stage I first"):
        adapter.begin_residual()


def test_factors_of_another_base_are_refused_and_the_base_stays_itself(base, forward):
    plain = forward()
    adapter = Adapter.attach(base.transformer, settings(base), seed=0)
    triple = adapter.triple()
    adapter.detach()
    path, factors = next(iter(triple.layers.items()))
    wrong = LayerFactors(factors.basis[:-1], factors.coefficients)
    with pytest.raises(InputError, match="shape of"):
        Adapter.from_triple(base.transformer, LoraTriple({**triple.layers, path: wrong}, "output", 3))
    assert torch.equal(forward(), plain)


def test_only_the_adapter_is_trainable(base):
    Adapter.attach(base.transformer, settings(base), seed=0)
    trainable = [name for name, parameter in base.transformer.named_parameters() if parameter.requires_grad]
    assert trainable
    assert all("concept" in name for name in trainable)


def test_a_seed_fixes_the_start(base):
    first = Adapter.attach(base.transformer, settings(base), seed=1)
    one = first.triple()
    first.detach()
    second = Adapter.attach(base.transformer, settings(base), seed=1)
    two = second.triple()
    second.detach()
    other = Adapter.attach(base.transformer, settings(base), seed=2).triple()
    path = next(iter(one.layers))
    assert torch.equal(one.layers[path].coefficients, two.layers[path].coefficients)
    assert not torch.equal(one.layers[path].coefficients, other.layers[path].coefficients)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"not a file", "cannot be read"), (None, "not a training triple")],
)
def test_other_files_are_refused_by_name(tmp_path, content, message):
    path = tmp_path / "x.safetensors"
    if content is None:
        from safetensors.torch import save_file

        save_file({"a": torch.zeros(1)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        LoraTriple.load(path)


def gradients_of(folder, dtype, products, basis):
    """Of every factor, and what the first layer's two products came out in."""
    base = load_base(str(folder), dtype=dtype)
    adapter = Adapter.attach(base.transformer, settings(base, basis=basis), seed=0)
    randomise(adapter)
    adapter.compute_in(products)
    layer, seen = base.blocks()[0].attn1.to_q, []
    for side in (layer.lora_A, layer.lora_B):
        side["concept"].register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    draw = torch.Generator().manual_seed(0)
    noisy, target = torch.randn(2, 2, 16, 2, 4, 4, generator=draw)
    velocity = base.velocity(noisy, torch.tensor([0.3, 0.8]), base.encode_text(["a red dog", "a cat on the beach"]))
    (velocity.float() - target).square().mean().backward()
    live = [factor for kind in ("basis", "coefficients") for factor in adapter.factors(kind).values()]
    assert {factor.dtype for factor in live} == {factor.grad.dtype for factor in live} == {torch.float32}
    stored = adapter.triple()
    adapter.detach()
    assert not any("lora" in name or "parametrizations" in name for name, _ in base.transformer.named_parameters())
    return torch.cat([factor.grad.flatten() for factor in live]), set(seen), stored


@pytest.mark.parametrize("basis", ["output", "input"])
def test_products_in_half_precision_cost_no_more_than_the_base_in_it_does(tiny_folder, basis):
    exact, _, _ = gradients_of(tiny_folder, torch.float32, torch.float32, basis)
    wide, seen_wide, stored = gradients_of(tiny_folder, torch.bfloat16, torch.float32, basis)
    narrow, seen_narrow, as_stored = gradients_of(tiny_folder, torch.bfloat16, torch.bfloat16, basis)
    assert (seen_wide, seen_narrow) == ({torch.float32}, {torch.bfloat16})
    assert not torch.equal(wide, narrow)
    assert (narrow - exact).norm() < 1.5 * (wide - exact).norm() < 0.1 * exact.norm()
    for path, factors in stored.layers.items():
        assert torch.equal(factors.basis, as_stored.layers[path].basis)
        assert torch.equal(factors.coefficients, as_stored.layers[path].coefficients)


def test_only_a_gpu_multiplies_in_half_precision():
    assert products_dtype(torch.device("cpu"), torch.bfloat16) == torch.float32
    assert products_dtype(torch.device("cuda", 1), torch.bfloat16) == torch.bfloat16
