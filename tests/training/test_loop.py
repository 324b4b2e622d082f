"""The loop: exact resume, micro-batches and recomputation change nothing, non-finite stops in time."""

from __future__ import annotations

import pytest
import torch

from pipeline_lib.errors import ArtifactError, NonFiniteError, StopRequested
from pipeline_lib.methods.method import StageInputs
from pipeline_lib.methods.set_and_sequence import SetAndSequence, SetAndSequenceSettings
from pipeline_lib.training.checkpoint import Checkpoints
from pipeline_lib.training.loop import make_optimizer, run_stage, train_step

SETTINGS = SetAndSequenceSettings.model_validate(
    {
        "rank": 2,
        "batch": 3,
        "identity_steps": 7,
        "motion_steps": 7,
        "special_tokens": "encoder_output",
        "optimizer": {"learning_rate": 1e-2, "token_learning_rate": 1e-2},
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


@pytest.mark.parametrize("change", ["micro-batches", "recomputation"])
def test_micro_batches_and_recomputation_give_the_same_gradients(tiny_folder, data, prior, change):
    from pipeline_lib.models.load import load_base

    def warm(base, micro_batch):
        stage = stage_of(base, data, prior, micro_batch=micro_batch)
        for basis in stage.adapter.factors("basis").values():  # at zero the coefficients get no gradient
            basis.data.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
        return stage

    plain = gradients(warm(load_base(str(tiny_folder)), 64))
    other_base = load_base(str(tiny_folder))
    other_base.set_gradient_checkpointing(change == "recomputation")
    other = gradients(warm(other_base, 64 if change == "recomputation" else 2))
    for name, gradient in plain.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-5, atol=1e-6, msg=name)
        assert bool(gradient.any()), name


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
