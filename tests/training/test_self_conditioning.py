"""Self-conditioning in training: when it is on, what is seen, what learns, and that off is off."""

from __future__ import annotations

import json

import pytest
import torch

from pipeline_lib.errors import InputError, StopRequested
from pipeline_lib.flow_matching import interpolate
from pipeline_lib.methods.method import StageInputs
from pipeline_lib.methods.set_and_sequence.method import SetAndSequence
from pipeline_lib.methods.settings import settings_from
from pipeline_lib.models.concept import SELF_CONDITIONING_FILE
from pipeline_lib.models.folder import CARD_NAME
from pipeline_lib.models.load import load_base
from pipeline_lib.models.self_conditioning import PatchProjection, SelfConditioning
from pipeline_lib.models.tiny import tiny_wan
from pipeline_lib.training.batch import micro_batches
from pipeline_lib.training.checkpoint import Checkpoints
from pipeline_lib.training.loop import run_stage

METHOD = SetAndSequence()
SMALL = {
    "rank": 2,
    "batch": 3,
    "identity_steps": 5,
    "motion_steps": 5,
    "identity_dropout": 0.5,
    "optimizer": {"learning_rate": 1e-2},
}


def stage_of(base, data, prior, *, choice="on", index=0, previous=None, **changes):
    spec = METHOD.plan(settings_from(METHOD, "portable", {**SMALL, "self_conditioning": choice, **changes}), True)[
        index
    ]
    return METHOD.build(spec, base, StageInputs(data=data, prior=prior, previous=previous, seed=5, micro_batch=64))


def warmed(stage):
    """In the middle of its training: nothing is at zero."""
    for number, parameter in enumerate(stage.trainable().values()):
        parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(number))
    return stage


def train(stage, folder, *, stop_after=None):
    seen = []
    folder.mkdir(parents=True, exist_ok=True)
    asked = iter(range(1, 100))
    run_stage(
        stage, Checkpoints(folder, 100), on_step=seen.append, stop=lambda: next(asked) == stop_after, validate_every=2
    )
    return [(record.step, record.metrics) for record in seen]


def test_at_the_start_it_is_the_base_bit_for_bit(base, data):
    clean = data.windows.latents[:2]
    text = data.clip_text.conditioning.take([0, 0])
    sigma = torch.tensor([0.3, 0.9])
    with torch.no_grad():
        expected = base.velocity(clean, sigma, text)
        live = SelfConditioning.zero(base.transformer, base.spec.patch_embedding)
        with live.given(torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))):
            assert torch.equal(base.velocity(clean, sigma, text), expected)
        live.weight.data.fill_(0.1)
        assert torch.equal(base.velocity(clean, sigma, text), expected), "it sees nothing"
        with live.given(clean):
            assert not torch.equal(base.velocity(clean, sigma, text), expected)
        live.remove()
        with live.given(clean):
            assert torch.equal(base.velocity(clean, sigma, text), expected)


@pytest.mark.parametrize("choice", ["off", "auto"])
def test_off_is_off(tiny_folder, data, prior, tmp_path, choice):
    stages = {name: stage_of(load_base(str(tiny_folder)), data, prior, choice=name) for name in (choice, "on")}
    assert stages[choice].self_conditioning is None
    assert set(stages["on"].trainable()) - set(stages[choice].trainable()) == {"self_conditioning"}
    drawn = {name: stage.draw(2) for name, stage in stages.items()}
    assert not any(sample.estimated for sample in drawn[choice])
    for one, other in zip(*drawn.values(), strict=True):
        assert torch.equal(one.noise, other.noise)
        assert torch.equal(one.sigma, other.sigma)
        assert one.row == other.row
    METHOD.finish(stages[choice], tmp_path)
    assert not (tmp_path / SELF_CONDITIONING_FILE).exists()


def test_the_default_leaves_no_trace_in_a_spec():
    plans = {
        choice: METHOD.plan(settings_from(METHOD, "portable", {"self_conditioning": choice}), True)
        for choice in ("auto", "on")
    }
    for spec in plans["auto"]:
        assert not {"self_conditioning", "estimate_probability"} & set(spec.settings)
    assert plans["on"][0].settings["self_conditioning"] == "on"


def test_auto_asks_the_bases_card(tmp_path, data, prior):
    folder = tiny_wan(tmp_path / "base")
    card = folder / CARD_NAME
    told = json.loads(card.read_text())
    assert "self_conditioning" not in told, "cards of earlier bases keep their bytes, and bases their digest"
    card.write_text(json.dumps({**told, "self_conditioning": True}))
    base = load_base(str(folder))
    assert base.spec.self_conditioned
    assert stage_of(base, data, prior, choice="auto").self_conditioning is not None
    assert stage_of(load_base(str(folder)), data, prior, choice="off").self_conditioning is None


def test_half_of_the_samples_see_their_estimate_the_priors_too(base, data, prior):
    stage = stage_of(base, data, prior)
    samples = [sample for step in range(100) for sample in stage.draw(step)]
    for origin in ("concept", "prior"):
        seen = [sample.estimated for sample in samples if sample.origin == origin]
        assert sum(seen) / len(seen) == pytest.approx(0.5, abs=0.08)
    assert [sample.estimated for sample in stage.draw(3)] == [sample.estimated for sample in stage.draw(3)]


def test_the_loss_by_hand_same_masks_no_gradient_through_the_estimate(base, data, prior):
    stage = warmed(stage_of(base, data, prior))
    samples = stage.draw(1)
    assert any(sample.estimated for sample in samples) and not all(sample.estimated for sample in samples)
    loss, _ = stage.loss(samples)
    loss.backward()
    got = {name: parameter.grad.clone() for name, parameter in stage.trainable().items()}
    for parameter in stage.trainable().values():
        parameter.grad = None
    total = torch.zeros(())
    for sample in samples:
        bank = stage.sources[0 if sample.origin == "concept" else 1].text
        text = bank.conditioning.take([sample.row])
        clean, noise, sigma = sample.clean[None], sample.noise[None], sample.sigma[None]
        noisy = interpolate(clean, noise, sigma)
        estimate = torch.zeros_like(noisy)
        if sample.estimated:
            with torch.no_grad():  # the dropout masks of this step are in force here too
                estimate = noisy - sigma * base.velocity(noisy, sigma, text)
        with stage.self_conditioning.given(estimate):
            error = (base.velocity(noisy, sigma, text) - (noise - clean)).square().mean()
        total = total + sample.weight * error
    assert float(loss.detach()) == pytest.approx(float(total.detach()), rel=1e-5)
    total.backward()
    assert bool(got["self_conditioning"].any())
    for name, parameter in stage.trainable().items():
        torch.testing.assert_close(got[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


def gradients(folder, data, prior, *, micro_batch=64, recompute=False):
    base = load_base(str(folder))
    base.set_gradient_checkpointing(recompute)
    stage = warmed(stage_of(base, data, prior))
    for samples in micro_batches(stage.draw(1), micro_batch):
        stage.loss(samples)[0].backward()
    return {name: parameter.grad.clone() for name, parameter in stage.trainable().items()}


@pytest.mark.parametrize("change", [{"micro_batch": 1}, {"micro_batch": 4}, {"recompute": True}], ids=str)
def test_micro_batches_and_recomputation_give_the_same_gradients(tiny_folder, data, prior, change):
    whole, other = gradients(tiny_folder, data, prior), gradients(tiny_folder, data, prior, **change)
    for name, gradient in whole.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_a_stopped_stage_goes_on_to_the_same_bits(tiny_folder, data, prior, tmp_path):
    whole = stage_of(load_base(str(tiny_folder)), data, prior)
    told = train(whole, tmp_path / "whole")
    with pytest.raises(StopRequested):
        train(stage_of(load_base(str(tiny_folder)), data, prior), tmp_path / "broken", stop_after=2)
    resumed = stage_of(load_base(str(tiny_folder)), data, prior)
    assert train(resumed, tmp_path / "broken") == told
    expected = whole.trainable()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.trainable().items())


def test_it_learns_in_both_stages_and_leaves_the_base(base, data, prior, tmp_path):
    with torch.no_grad():
        clean, text = data.windows.latents[:1], data.clip_text.conditioning.take([0])
        expected = base.velocity(clean, torch.tensor([0.5]), text)
    one = stage_of(base, data, prior)
    train(one, tmp_path / "one")
    figures = METHOD.finish(one, tmp_path / "one")
    METHOD.release(one)
    first = PatchProjection.load(tmp_path / "one" / SELF_CONDITIONING_FILE)
    assert figures["self_conditioning_norm"] == pytest.approx(float(first.weight.norm()))
    assert bool(first.weight.any())
    two = stage_of(base, data, prior, index=1, previous=tmp_path / "one")
    assert torch.equal(two.self_conditioning.weight, first.weight)
    train(two, tmp_path / "two")
    METHOD.finish(two, tmp_path / "two")
    METHOD.release(two)
    assert not torch.equal(PatchProjection.load(tmp_path / "two" / SELF_CONDITIONING_FILE).weight, first.weight)
    with torch.no_grad():
        assert torch.equal(base.velocity(clean, torch.tensor([0.5]), text), expected)


def test_a_projection_of_another_base_is_refused(base):
    with pytest.raises(InputError, match="another base"):
        SelfConditioning(base.transformer, PatchProjection("patch_embedding", torch.zeros(24, 8, 1, 2, 2)))
    with pytest.raises(InputError, match="no patch embedding"):
        SelfConditioning.zero(base.transformer, "blocks.0")
