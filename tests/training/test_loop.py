"""The loop: exact resume, micro-batches and recomputation change nothing, non-finite stops in time."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pipeline_lib.errors import ArtifactError, NonFiniteError, StopRequested
from pipeline_lib.methods.method import StageInputs
from pipeline_lib.methods.set_and_sequence.method import SetAndSequence
from pipeline_lib.methods.set_and_sequence.settings import SetAndSequenceSettings
from pipeline_lib.training.checkpoint import Checkpoints
from pipeline_lib.training.loop import make_optimizer, run_stage, train_step

SETTINGS = SetAndSequenceSettings.model_validate(
    {
        "rank": 2,
        "batch": 3,
        "identity_steps": 7,
        "motion_steps": 7,
        "special_tokens": "encoder_output",
        "optimizer": {"learning_rate": 1e-2, "token_learning_rate": 1e-2, "decay": 0.5},
    }
)


def stage_of(base, data, prior, micro_batch=64, **changes):
    settings = SETTINGS.model_copy(update=changes)
    spec = SetAndSequence().plan(settings, has_clips=True)[0]
    inputs = StageInputs(data=data, prior=prior, previous=None, seed=5, micro_batch=micro_batch)
    return SetAndSequence().build(spec, base, inputs)


def values(stage):
    return {name: parameter.detach().clone() for name, parameter in stage.trainable().items()}


def run(stage, folder, *, stop_after=None, every=100):
    seen = []
    folder.mkdir(parents=True, exist_ok=True)
    run_stage(
        stage,
        Checkpoints(folder, every),
        on_step=seen.append,
        stop=lambda: stop_after is not None and len(seen) + 1 >= stop_after,
        validate_every=3,
    )
    return seen


def test_every_step_is_told_once_and_the_loss_falls(base, data, prior, tmp_path):
    seen = run(stage_of(base, data, prior, identity_steps=60, identity_dropout=0.0), tmp_path)
    assert [record.step for record in seen] == list(range(1, 61))
    validation = [record.metrics["validation_loss"] for record in seen if "validation_loss" in record.metrics]
    assert validation[-1] < validation[0]
    first = seen[0].metrics
    assert first["loss"] == pytest.approx(first["concept_loss"] + first["prior_loss"], rel=1e-5)


def test_a_stopped_stage_goes_on_to_the_same_bits(tiny_folder, data, prior, tmp_path):
    from pipeline_lib.models.load import load_base

    whole = stage_of(load_base(str(tiny_folder)), data, prior)
    told = run(whole, tmp_path / "whole")
    broken = stage_of(load_base(str(tiny_folder)), data, prior)
    with pytest.raises(StopRequested):
        run(broken, tmp_path / "broken", stop_after=1)
    resumed = stage_of(load_base(str(tiny_folder)), data, prior)
    told_again = run(resumed, tmp_path / "broken")
    assert [(r.step, r.metrics) for r in told_again] == [(r.step, r.metrics) for r in told]
    expected = values(whole)
    assert all(torch.equal(value, expected[name]) for name, value in values(resumed).items())


def test_rates_stay_and_then_fall_towards_zero(base, data, prior):
    stage = stage_of(base, data, prior, identity_steps=8)
    optimizer = make_optimizer(stage)
    seen = []
    for step in range(8):
        train_step(stage, optimizer, step)
        seen.append([group["lr"] / 1e-2 for group in optimizer.param_groups])
    wanted = [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert [rates[0] for rates in seen] == pytest.approx(wanted)
    assert [rates[1] for rates in seen] == pytest.approx(wanted)  # learned words too
    constant = dataclasses.replace(stage, optimizer=dataclasses.replace(stage.optimizer, decay=0.0))
    assert {constant.rate_factor(step) for step in range(7)} == {1.0}


def test_a_checkpoint_of_another_stage_is_refused(base, data, prior, tmp_path):
    stage = stage_of(base, data, prior)
    run(stage, tmp_path)
    SetAndSequence().release(stage)
    with pytest.raises(ArtifactError, match="other parameters"):
        run(stage_of(base, data, prior, special_tokens="word"), tmp_path)


def gradients(stage):
    for samples in _micro(stage):
        stage.loss(samples)[0].backward()
    return {name: parameter.grad.clone() for name, parameter in stage.trainable().items()}


def _micro(stage):
    from pipeline_lib.training.batch import micro_batches

    return micro_batches(stage.draw(0), stage.micro_batch)


@pytest.fixture(scope="module")
def identity(tiny_folder, data, prior, tmp_path_factory):
    """Stage I's result, for Stage II to start from."""
    from pipeline_lib.models.load import load_base

    folder = tmp_path_factory.mktemp("identity")
    stage = stage_of(load_base(str(tiny_folder)), data, prior)
    run(stage, folder)
    SetAndSequence().finish(stage, folder)
    return folder


def warm_stage(folder, parts, *, index, micro_batch=64, recompute=False):
    """A stage in the middle of its training, with dropout on, ready for one step."""
    from pipeline_lib.models.load import load_base

    data, prior, identity = parts
    base = load_base(str(folder))
    base.set_gradient_checkpointing(recompute)
    spec = SetAndSequence().plan(SETTINGS, has_clips=True)[index]
    previous = identity if index else None
    inputs = StageInputs(data=data, prior=prior, previous=previous, seed=5, micro_batch=micro_batch)
    stage = SetAndSequence().build(spec, base, inputs)
    for kind in stage.learning:  # at zero the other factor gets no gradient
        for number, factor in enumerate(stage.adapter.factors(kind).values()):
            factor.data.normal_(std=0.1, generator=torch.Generator().manual_seed(number))
    return stage


@pytest.mark.parametrize("index", [0, 1], ids=["identity", "motion"])
@pytest.mark.parametrize("change", [{"micro_batch": 2}, {"recompute": True}], ids=["micro-batches", "recomputation"])
def test_micro_batches_and_recomputation_give_the_same_gradients(tiny_folder, data, prior, identity, index, change):
    parts = (data, prior, identity)
    plain = gradients(warm_stage(tiny_folder, parts, index=index))
    other = gradients(warm_stage(tiny_folder, parts, index=index, **change))
    assert plain.keys() == other.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-5, atol=1e-6, msg=name)
        assert bool(gradient.any()), name


def test_the_validation_loss_is_the_mean_over_fixed_quantiles_by_hand(base, data, prior):
    from pipeline_lib.flow_matching import sigma_quantiles
    from pipeline_lib.seeding import generator
    from pipeline_lib.training.text import with_learned

    stage = stage_of(base, data, prior, micro_batch=3)
    assert stage.validation_held_out
    sigmas = sigma_quantiles(8, base.spec.sigma_shift)
    errors = []
    for index, clean in enumerate(data.held_out_frames.latents):
        noise = torch.randn(8, *clean.shape, generator=generator(5, "validation", index))
        text = with_learned(base, data.frame_text, [0], stage.vectors)
        for sigma, one in zip(sigmas, noise, strict=True):
            noisy = ((1 - sigma) * clean + sigma * one)[None]
            with torch.no_grad():
                errors.append((base.velocity(noisy, sigma[None], text) - (one - clean)).square().mean())
    assert stage.validate() == pytest.approx(float(torch.stack(errors).mean()), rel=1e-5)


def test_masks_in_force_do_not_reach_the_validation_loss(tiny_folder, data, prior, identity):
    stage = warm_stage(tiny_folder, (data, prior, identity), index=1)
    before = stage.validate()
    stage.draw(0)
    assert stage.validate() == before


def test_nothing_is_stepped_with_a_gradient_that_is_not_finite(base, data, prior, tmp_path):
    stage = stage_of(base, data, prior)
    data_latents = stage.sources[0].latents.latents
    before = values(stage)
    kept = data_latents.clone()
    try:
        data_latents.fill_(float("nan"))
        with pytest.raises(NonFiniteError, match="stage identity, step 1"):
            run(stage, tmp_path)
    finally:
        data_latents.copy_(kept)
    assert all(torch.equal(value, before[name]) for name, value in values(stage).items())


def test_steps_after_a_bad_one_are_skipped_until_the_host_looks(base, data, prior):
    stage = stage_of(base, data, prior)
    optimizer = make_optimizer(stage)
    train_step(stage, optimizer, 0)
    before = values(stage)
    optimizer.found_inf = torch.tensor(1.0)
    train_step(stage, optimizer, 1)
    assert all(torch.equal(value, before[name]) for name, value in values(stage).items())


def test_no_encoder_is_called_after_caching(tiny_folder, data, prior, tmp_path):
    from pipeline_lib.models.load import load_base

    base = load_base(str(tiny_folder))
    run(stage_of(base, data, prior, identity_steps=3), tmp_path)
    assert base.encoder_calls == 0
