"""Textual inversion: one word moves and nothing else, and what it leaves is a concept like any other."""

from __future__ import annotations

import pytest
import torch

from pipeline_lib.errors import StopRequested
from pipeline_lib.methods.baselines.textual_inversion import TextualInversion
from pipeline_lib.methods.method import StageInputs
from pipeline_lib.methods.settings import settings_from
from pipeline_lib.models.concept import Companions, load_concept, save_concept, unload_concept
from pipeline_lib.models.load import load_base
from pipeline_lib.models.triple import LoraTriple
from pipeline_lib.training.batch import micro_batches
from pipeline_lib.training.checkpoint import Checkpoints
from pipeline_lib.training.encode import encode_training_data
from pipeline_lib.training.loop import run_stage
from tests.models.test_concept import latents, record, stock
from tests.training.conftest import CAPTION, clip_of, moving_square

METHOD = TextualInversion()


def settings_of(**changes):
    own = {"steps": 6, "batch": 3, "word_optimizer": {"learning_rate": 5e-2, "max_gradient_norm": 1.0}}
    return settings_from(METHOD, "portable", {**own, **changes})


@pytest.fixture(scope="module")
def spoken(tiny_folder):
    base = load_base(str(tiny_folder))
    encoding = METHOD.encoding(settings_of(), base, "dog")
    return encode_training_data(base, [clip_of(moving_square(7))], [CAPTION], encoding)


def stage_of(base, data, *, micro_batch=64, has_clips=True, **changes):
    (spec,) = METHOD.plan(settings_of(**changes), has_clips=has_clips)
    return METHOD.build(spec, base, StageInputs(data=data, prior=None, previous=None, seed=5, micro_batch=micro_batch))


def train(stage, folder, *, stop_after=None):
    asked, seen = iter(range(1, 1000)), []
    folder.mkdir(parents=True, exist_ok=True)
    run_stage(stage, Checkpoints(folder, 100), on_step=seen.append, stop=lambda: next(asked) == stop_after)
    return [(step.step, step.metrics) for step in seen]


def test_only_the_word_moves(tiny_folder, spoken, tmp_path):
    base = load_base(str(tiny_folder))
    networks = {"denoiser": base.experts()[0][1], "encoder": base.pipeline().text_encoder}
    before = {name: {k: v.clone() for k, v in one.state_dict().items()} for name, one in networks.items()}
    stage = stage_of(base, spoken)
    assert set(stage.trainable()) == {"token.subject"}
    assert [group["initial_lr"] for group in stage.parameter_groups()] == [5e-2]
    start, factors = stage.vectors["subject"].detach().clone(), stage.adapter.triple()
    torch.testing.assert_close(start, base.token_embeddings("dog").mean(0))
    stage.loss(stage.draw(0))[0].backward()
    learning = [value for one in networks.values() for value in one.parameters() if value.requires_grad]
    assert learning == []
    assert bool(stage.vectors["subject"].grad.any())
    stage.vectors["subject"].grad = None
    train(stage, tmp_path)
    figures = METHOD.finish(stage, tmp_path)
    assert not torch.equal(stage.vectors["subject"].detach(), start)
    assert set(figures) == {"subject_relative_norm", "validation_held_out"}
    after = LoraTriple.load(tmp_path / "triple.safetensors")
    for path, own in factors.layers.items():
        assert torch.equal(after.layers[path].basis, own.basis)
        assert torch.equal(after.layers[path].coefficients, own.coefficients)
    assert after.rank == 1
    assert not any(bool((up @ down).any()) for down, up in after.merged().values())
    METHOD.release(stage)
    for name, network in networks.items():
        now = network.state_dict()
        assert now.keys() == before[name].keys()
        assert all(torch.equal(now[key], value) for key, value in before[name].items()), name


def test_it_learns_on_clips_or_on_frames(base, spoken, tmp_path):
    for has_clips in (True, False):
        stage = stage_of(base, spoken, steps=40, has_clips=has_clips)
        kind = spoken.windows if has_clips else spoken.frames
        assert stage.sources[0].latents is kind
        before = stage.validate()
        train(stage, tmp_path / str(has_clips))
        assert stage.validate() < before
        METHOD.release(stage)


def test_its_result_is_a_concept_whose_lora_alone_is_the_base(tiny_folder, base, spoken, tmp_path):
    stage = stage_of(base, spoken, word_optimizer={"learning_rate": 1.0, "max_gradient_norm": 10.0})
    train(stage, tmp_path / "stage")
    METHOD.finish(stage, tmp_path / "stage")
    beside, triple = Companions.load(tmp_path / "stage"), LoraTriple.load(tmp_path / "stage" / "triple.safetensors")
    facts = record(trigger=METHOD.subject(settings_of(), base, "dog"), method=METHOD.name, rank=triple.rank)
    folder = save_concept(tmp_path / "concept", facts, triple, beside.tokens)
    pipeline = stock(tiny_folder)
    plain, spoken_plainly = latents(pipeline), said(pipeline, facts.trigger)
    load_concept(pipeline, folder)
    assert not torch.allclose(said(pipeline, facts.trigger), spoken_plainly, atol=1e-2)
    assert not torch.allclose(latents(pipeline), plain, atol=1e-3)
    unload_concept(pipeline, facts.name)
    assert torch.equal(latents(pipeline), plain)
    bare = stock(tiny_folder)
    bare.load_lora_weights(folder / "lora.safetensors")
    assert torch.equal(latents(bare), plain)


def said(pipeline, subject):
    return pipeline.encode_prompt(f"a {subject} on the beach", do_classifier_free_guidance=False)[0]


@pytest.mark.parametrize("change", [{"micro_batch": 2}, {"recompute": True}], ids=str)
def test_micro_batches_and_recomputation_give_the_same_gradient(tiny_folder, spoken, change):
    def gradient(micro_batch=64, recompute=False):
        base = load_base(str(tiny_folder))
        base.set_gradient_checkpointing(recompute)
        stage = stage_of(base, spoken, micro_batch=micro_batch)
        for samples in micro_batches(stage.draw(0), micro_batch):
            stage.loss(samples)[0].backward()
        return stage.vectors["subject"].grad

    whole = gradient()
    assert bool(whole.any())
    torch.testing.assert_close(gradient(**change), whole, rtol=1e-5, atol=1e-7)


def test_a_stopped_stage_goes_on_to_the_same_bits(tiny_folder, spoken, tmp_path):
    whole = stage_of(load_base(str(tiny_folder)), spoken)
    told = train(whole, tmp_path / "whole")
    with pytest.raises(StopRequested):
        train(stage_of(load_base(str(tiny_folder)), spoken), tmp_path / "broken", stop_after=2)
    resumed = stage_of(load_base(str(tiny_folder)), spoken)
    assert train(resumed, tmp_path / "broken") == told
    assert torch.equal(resumed.vectors["subject"], whole.vectors["subject"])
