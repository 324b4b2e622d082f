"""DreamMix: each step draws whether it sees frames or clips, and the draw is counted as all others are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pipeline_lib.errors import ConfigError, StopRequested
from pipeline_lib.methods.baselines.dreammix import DreamMix
from pipeline_lib.methods.method import StageInputs
from pipeline_lib.methods.settings import settings_from
from pipeline_lib.models.load import load_base
from pipeline_lib.training.batch import micro_batches
from pipeline_lib.training.checkpoint import Checkpoints
from pipeline_lib.training.loop import run_stage, train_step
from pipeline_lib.training.ranks import Ranks
from pipeline_lib.training.sharding import check_shardable

METHOD = DreamMix()
SMALL = {"rank": 2, "batch": 3, "steps": 8, "optimizer": {"learning_rate": 1e-2}}


def stage_of(base, data, *, prior=None, micro_batch=64, seed=5, **changes):
    (spec,) = METHOD.plan(settings_from(METHOD, "portable", {**SMALL, **changes}), has_clips=True)
    if prior is not None:
        spec = spec.model_copy(update={"settings": {**spec.settings, "prior_weight": 0.5}})
    inputs = StageInputs(data=data, prior=prior, previous=None, seed=seed, micro_batch=micro_batch)
    return METHOD.build(spec, base, inputs)


def warmed(stage):
    """In the midst of training: where one factor is zero the other gets no gradient."""
    for number, factor in enumerate(stage.adapter.factors("basis").values()):
        factor.data.normal_(std=0.1, generator=torch.Generator().manual_seed(number))
    return stage


def sees_frames(samples):
    (frames,) = {sample.clean.shape[1] == 1 for sample in samples}
    return frames


def a_step_of_each(stage):
    turns = [sees_frames(stage.draw(step)) for step in range(20)]
    return {"frames": turns.index(True), "clips": turns.index(False)}


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_a_share_of_the_steps_sees_frames_the_others_clips(base, data, share):
    stage = stage_of(base, data, frame_share=share)
    turns = [sees_frames(stage.draw(step)) for step in range(600)]
    assert sum(turns) / len(turns) == pytest.approx(share, abs=0.05)
    assert turns[:50] == [sees_frames(stage.draw(step)) for step in range(50)], "a step's turn is its counter's"
    other = replace(stage, seed=6)
    assert turns[:50] != [sees_frames(other.draw(step)) for step in range(50)]


def test_frames_with_the_static_prompt_clips_with_the_full_one(base, data):
    stage = stage_of(base, data)
    for kind, step in a_step_of_each(stage).items():
        samples = stage.draw(step)
        latents, text = (data.frames, data.frame_text) if kind == "frames" else (data.windows, data.clip_text)
        assert len(samples) == 3
        for sample in samples:
            assert sample.source.text is text
            assert any(torch.equal(sample.clean, one) for one in latents.latents)
        seen = stage._conditioning(samples).tensors["text"]
        wanted = text.conditioning.take([sample.row for sample in samples]).tensors["text"]
        assert torch.equal(seen, wanted)
        loss, parts = stage.loss(samples)
        assert parts == {"concept_loss": pytest.approx(float(loss.detach()), rel=1e-6)}


def test_images_alone_leave_no_turns():
    (spec,) = METHOD.plan(settings_from(METHOD, "portable", SMALL), has_clips=False)
    assert spec.data == "frames"
    assert "frame_share" not in spec.settings


def run(stage, folder, *, stop_after=None):
    asked, seen = iter(range(1, 1000)), []
    folder.mkdir(exist_ok=True)
    run_stage(stage, Checkpoints(folder, 100), on_step=seen.append, stop=lambda: next(asked) == stop_after)
    return [(step.step, step.metrics) for step in seen]


def test_a_stopped_stage_goes_on_to_the_same_bits(tiny_folder, data, tmp_path):
    whole = stage_of(load_base(str(tiny_folder)), data)
    turns = [sees_frames(whole.draw(step)) for step in range(8)]
    assert len({*turns[:3]}) == len({*turns[3:]}) == 2, "a test of nothing: both kinds before and after"
    told = run(whole, tmp_path / "whole")
    with pytest.raises(StopRequested):
        run(stage_of(load_base(str(tiny_folder)), data), tmp_path / "broken", stop_after=3)
    resumed = stage_of(load_base(str(tiny_folder)), data)
    assert run(resumed, tmp_path / "broken") == told
    expected = whole.trainable()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.trainable().items())


def gradients(stage, step, *, micro_batch=64, processes=1):
    """Summed over micro-batches, and over the shares that processes would take."""
    for rank in range(processes):
        for samples in micro_batches(Ranks(rank, processes).share(stage.draw(step)), micro_batch):
            stage.loss(samples)[0].backward()
    found = {name: parameter.grad.clone() for name, parameter in stage.trainable().items()}
    for parameter in stage.trainable().values():
        parameter.grad = None
    return found


@pytest.mark.parametrize("kind", ["frames", "clips"])
@pytest.mark.parametrize("change", [{"micro_batch": 2}, {"micro_batch": 1}, {"processes": 2}], ids=str)
@pytest.mark.parametrize("with_prior", [False, True], ids=["alone", "prior"])
def test_micro_batches_and_processes_give_the_same_gradients(base, data, prior, kind, change, with_prior):
    stage = warmed(stage_of(base, data, prior=prior if with_prior else None))
    step = a_step_of_each(stage)[kind]
    whole, other = gradients(stage, step), gradients(stage, step, **change)
    for name, gradient in whole.items():
        assert bool(gradient.any()), name
        torch.testing.assert_close(other[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_the_prior_takes_the_same_turns(base, data, prior):
    stage = stage_of(base, data, prior=prior)
    for kind, step in a_step_of_each(stage).items():
        samples = stage.draw(step)
        assert [sample.origin for sample in samples] == ["concept"] * 3 + ["prior"] * 3
        kept = prior.frames if kind == "frames" else prior.clips
        assert all(any(torch.equal(sample.clean, one) for one in kept.latents) for sample in samples[3:])
        loss, parts = stage.loss(samples)
        assert set(parts) == {"concept_loss", "prior_loss"}
        assert float(loss.detach()) == pytest.approx(float(parts["concept_loss"] + 0.5 * parts["prior_loss"]), rel=1e-5)


def test_a_step_tells_the_same_metrics_whatever_it_sees(base, data):
    from pipeline_lib.training.loop import make_optimizer

    stage = stage_of(base, data)
    optimizer = make_optimizer(stage)
    told = [set(train_step(stage, optimizer, step)) for step in a_step_of_each(stage).values()]
    assert told[0] == told[1] == {"loss", "concept_loss", "gradient_norm"}


def test_processes_are_counted_against_one_turn_not_against_both(base, data, prior):
    assert stage_of(base, data).step_sizes() == [3, 3]
    stage = stage_of(load_base(base.source), data, prior=prior)
    assert stage.step_sizes() == [6, 6]
    check_shardable(stage, 6)
    with pytest.raises(ConfigError, match="6 samples in stage dreammix"):
        check_shardable(stage, 4)
