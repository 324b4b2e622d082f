"""Words learned at the text encoder's input: where they start, how they learn, what hides them."""

from __future__ import annotations

import pytest
import torch

from pipeline_lib.errors import StopRequested
from pipeline_lib.methods.method import StageInputs
from pipeline_lib.methods.set_and_sequence.method import SetAndSequence
from pipeline_lib.methods.settings import settings_from
from pipeline_lib.models.learned_tokens import LearnedTokens
from pipeline_lib.models.load import load_base
from pipeline_lib.training.batch import micro_batches
from pipeline_lib.training.checkpoint import Checkpoints
from pipeline_lib.training.encode import encode_training_data
from pipeline_lib.training.loop import run_stage
from pipeline_lib.training.text import encode_live, input_starts
from tests.training.conftest import CAPTION, clip_of, moving_square

METHOD = SetAndSequence()
SETTINGS = settings_from(
    METHOD,
    "portable",
    {
        "special_tokens": "encoder_input",
        "rank": 2,
        "batch": 3,
        "identity_steps": 5,
        "motion_steps": 5,
        "token_drop": 0.3,
        "optimizer": {"learning_rate": 1e-2, "token_learning_rate": 1e-2},
    },
)


@pytest.fixture(scope="module")
def spoken(tiny_folder):
    base = load_base(str(tiny_folder))
    return encode_training_data(base, [clip_of(moving_square(7))], [CAPTION], METHOD.encoding(SETTINGS, base, "dog"))


def stage_of(base, data, prior, *, index=0, previous=None, micro_batch=64, **changes):
    spec = METHOD.plan(SETTINGS.model_copy(update=changes), has_clips=True)[index]
    inputs = StageInputs(data=data, prior=prior, previous=previous, seed=5, micro_batch=micro_batch)
    return METHOD.build(spec, base, inputs)


def train(stage, folder, *, stop_after=None):
    seen = []
    folder.mkdir(parents=True, exist_ok=True)
    asked = iter(range(1, 100))
    run_stage(
        stage, Checkpoints(folder, 100), on_step=seen.append, stop=lambda: next(asked) == stop_after, validate_every=2
    )
    return [(record.step, record.metrics) for record in seen]


def text_of(conditioning):
    return conditioning.tensors["text"]


def test_the_start_is_what_the_words_stand_before(base, spoken, prior, tmp_path):
    identity = stage_of(base, spoken, prior)
    dog = base.token_embeddings("dog").mean(0)
    torch.testing.assert_close(identity.vectors["subject"].data, dog)
    METHOD.finish(identity, tmp_path)
    METHOD.release(identity)
    starts = input_starts(base, spoken.clip_text.prompts, ["motion"])
    torch.testing.assert_close(starts["motion"], base.token_embeddings("running").mean(0))
    bare = f"a dog, {base.sentinel(1)}"  # nothing follows: the mean of all plain tokens
    spans = base.token_spans(bare)
    plain = [index for index, (low, high) in enumerate(spans) if bare[low:high] != base.sentinel(1)]
    torch.testing.assert_close(
        input_starts(base, [bare], ["motion"])["motion"], base.token_embeddings(bare)[plain].mean(0)
    )


def test_with_the_sentinels_own_embedding_it_is_the_stock_encoding(base, spoken):
    sentinel = base.sentinel(0)
    own = base.token_embeddings(sentinel)[0]
    live = encode_live(base, spoken.frame_text, [0, 0], [(), ()], {"subject": own})
    torch.testing.assert_close(text_of(live)[0], text_of(spoken.frame_text.conditioning)[0])
    assert torch.equal(text_of(live)[0], text_of(live)[1])
    assert torch.equal(
        text_of(base.encode_text([f"a {sentinel} dog"])), text_of(base.encode_text([f"a {sentinel} dog"], None, {}))
    )


def test_the_gradient_passes_the_frozen_encoder_to_the_words_alone(base, spoken, prior):
    stage = stage_of(base, spoken, prior, token_drop=0.0)
    for factor in stage.adapter.factors("basis").values():
        factor.data.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    stage.loss(stage.draw(0))[0].backward()
    assert bool(stage.vectors["subject"].grad.any())
    assert not any(parameter.requires_grad for parameter in base.pipeline().text_encoder.parameters())
    assert all(parameter.grad is None for parameter in base.pipeline().text_encoder.parameters())
    # By a finite difference, in one direction.
    direction = stage.vectors["subject"].grad / stage.vectors["subject"].grad.norm()
    expected = float(stage.vectors["subject"].grad.norm())
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            stage.vectors["subject"].add_(sign * 1e-2 * direction)
            losses.append(float(stage.loss(stage.draw(0))[0]))
            stage.vectors["subject"].sub_(sign * 1e-2 * direction)
    assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(expected, rel=0.05)


def test_tokens_are_hidden_at_the_input_word_and_all(base, spoken, prior):
    assert spoken.frame_text.variants == spoken.clip_text.variants == 1, "nothing is encoded beforehand"
    assert prior.text.variants > 1
    stage = stage_of(base, spoken, prior)
    concept = [sample for step in range(40) for sample in stage.draw(step) if sample.origin == "concept"]
    count = spoken.frame_text.token_counts[0]
    rate = sum(len(sample.hidden) for sample in concept) / (len(concept) * count)
    assert rate == pytest.approx(0.3, abs=0.05)
    assert all(len(sample.hidden) < count for sample in concept)
    assert not any(sample.hidden for step in range(4) for sample in stage.draw(step) if sample.origin == "prior")
    (position,) = spoken.frame_text.learned["subject"][0]
    vectors = [{"subject": torch.full((24,), value)} for value in (0.0, 2.0)]
    gone = [text_of(encode_live(base, spoken.frame_text, [0], [(position,)], vector)) for vector in vectors]
    seen = [text_of(encode_live(base, spoken.frame_text, [0], [(0,)], vector)) for vector in vectors]
    assert torch.equal(*gone)
    assert not torch.allclose(*seen)


def test_words_have_their_own_rate_and_no_decay(base, spoken, prior):
    groups = stage_of(base, spoken, prior).parameter_groups()
    assert [(group["initial_lr"], group["weight_decay"]) for group in groups] == [(1e-2, 0.01), (1e-2, 0.0)]


def gradients(folder, data, prior, *, micro_batch=64, recompute=False):
    base = load_base(str(folder))
    base.set_gradient_checkpointing(recompute)
    stage = stage_of(base, data, prior, micro_batch=micro_batch)
    for number, factor in enumerate(stage.adapter.factors("basis").values()):
        factor.data.normal_(std=0.1, generator=torch.Generator().manual_seed(number))
    for samples in micro_batches(stage.draw(0), micro_batch):
        stage.loss(samples)[0].backward()
    return {name: parameter.grad.clone() for name, parameter in stage.trainable().items()}


@pytest.mark.parametrize("change", [{"micro_batch": 2}, {"recompute": True}], ids=str)
def test_micro_batches_and_recomputation_give_the_same_gradients(tiny_folder, spoken, prior, change):
    whole, other = gradients(tiny_folder, spoken, prior), gradients(tiny_folder, spoken, prior, **change)
    assert "token.subject" in whole
    for name, gradient in whole.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_a_stopped_stage_goes_on_to_the_same_bits(tiny_folder, spoken, prior, tmp_path):
    whole = stage_of(load_base(str(tiny_folder)), spoken, prior)
    told = train(whole, tmp_path / "whole")
    with pytest.raises(StopRequested):
        train(stage_of(load_base(str(tiny_folder)), spoken, prior), tmp_path / "broken", stop_after=2)
    resumed = stage_of(load_base(str(tiny_folder)), spoken, prior)
    assert train(resumed, tmp_path / "broken") == told
    expected = whole.trainable()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.trainable().items())


def test_v_in_stage_one_then_u_with_v_frozen(tiny_folder, spoken, prior, tmp_path):
    base = load_base(str(tiny_folder))
    start = base.token_embeddings("dog").mean(0)
    one = stage_of(base, spoken, prior)
    train(one, tmp_path / "one")
    figures = METHOD.finish(one, tmp_path / "one")
    METHOD.release(one)
    learned = LearnedTokens.load(tmp_path / "one" / "tokens.safetensors")
    assert learned.mode == "encoder_input"
    assert not torch.equal(learned.vectors["subject"], start)
    assert 0 < figures["subject_relative_norm"] < 100
    two = stage_of(base, spoken, prior, index=1, previous=tmp_path / "one")
    before = two.vectors["motion"].detach().clone()
    assert set(two.learning_words) == {"motion"}
    train(two, tmp_path / "two")
    METHOD.finish(two, tmp_path / "two")
    both = LearnedTokens.load(tmp_path / "two" / "tokens.safetensors")
    assert torch.equal(both.vectors["subject"], learned.vectors["subject"])
    assert not torch.equal(both.vectors["motion"], before)


def test_the_specs_of_other_modes_do_not_know_of_it():
    plans = [
        METHOD.plan(SETTINGS.model_copy(update={"special_tokens": mode}), has_clips=True)[0]
        for mode in ("word", "encoder_output")
    ]
    assert not any({"words_at", "live_drop"} & set(plan.settings) for plan in plans)
    assert METHOD.plan(SETTINGS, has_clips=True)[0].settings["words_at"] == "encoder_input"


def test_the_facts_of_encoding_are_what_they_were(base):
    assert list(METHOD.encoding(SETTINGS, base, "dog").facts()) == [
        "num_frames",
        "drop",
        "subject",
        "motion",
        "learned",
        "seed",
    ], "it is hashed into the key of encoded data"
