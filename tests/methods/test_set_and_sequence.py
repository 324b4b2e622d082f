"""What is particular to Set-and-Sequence."""

from __future__ import annotations

import hashlib

import pytest
import torch

from pipeline_lib.errors import InputError, PipelineError
from pipeline_lib.methods.adapter_stage import effective_rank
from pipeline_lib.methods.method import StageInputs
from pipeline_lib.methods.set_and_sequence.method import SetAndSequence
from pipeline_lib.methods.settings import settings_from
from pipeline_lib.models.learned_tokens import LearnedTokens
from pipeline_lib.models.load import load_base
from pipeline_lib.models.triple import LoraTriple
from pipeline_lib.training.checkpoint import Checkpoints
from pipeline_lib.training.loop import run_stage

METHOD = SetAndSequence()
PRESET_DIGESTS = {
    "paper": "a8d74ada9d9bf9180fb7e9f3053cbffd5c20c9d138da0dd0cf7dc68d471502f8",
    "portable": "c06d89ffd4fd9a8eefe957aca17728daf73a6ee3d8dd661d6c4a82911d0d40f3",
    "pocket": "88686e9d849471a993d1eeff095c38557b66c2f9a2c994d1a827a1d2b30215f3",
    "demo": "612519d85231e1a103384569caaed5860ba089914be6992c59938551a3e0a81c",
}
SMALL = {"rank": 2, "batch": 2, "identity_steps": 5, "motion_steps": 5, "optimizer": {"learning_rate": 1e-2}}


def small(**changes):
    return settings_from(METHOD, "portable", {**SMALL, **changes})


def inputs(data, prior, previous=None):
    return StageInputs(data=data, prior=prior, previous=previous, seed=3, micro_batch=64)


def trained(settings, base, data, prior, folder, *, index=0, previous=None):
    stage = METHOD.build(METHOD.plan(settings, has_clips=True)[index], base, inputs(data, prior, previous))
    folder.mkdir()
    run_stage(stage, Checkpoints(folder, 100), on_step=lambda record: None)
    METHOD.finish(stage, folder)
    return stage


@torch.no_grad()
def velocity(base, data):
    clean = data.windows.latents[:1]
    return base.velocity(clean, torch.tensor([0.5]), data.clip_text.conditioning.take([0]))


@pytest.mark.parametrize("basis", ["output", "input"])
def test_stage_two_starts_as_stage_one_and_moves_only_the_residual(tiny_folder, data, prior, tmp_path, basis):
    settings = small(basis=basis)
    base = load_base(str(tiny_folder))
    METHOD.release(trained(settings, base, data, prior, tmp_path / "identity"))
    one = LoraTriple.load(tmp_path / "identity" / "triple.safetensors")

    from pipeline_lib.models.adapter import Adapter

    adapter = Adapter.from_triple(base.experts()[0][1], one)
    end_of_one = velocity(base, data)
    adapter.detach()

    spec = METHOD.plan(settings, has_clips=True)[1]
    stage = METHOD.build(spec, base, inputs(data, prior, tmp_path / "identity"))
    assert torch.equal(velocity(base, data), end_of_one)
    METHOD.release(stage)

    stage = trained(settings, base, data, prior, tmp_path / "motion", index=1, previous=tmp_path / "identity")
    two = LoraTriple.load(tmp_path / "motion" / "triple.safetensors")
    for path, factors in two.layers.items():
        assert torch.equal(factors.basis, one.layers[path].basis)
        assert torch.equal(factors.coefficients, one.layers[path].coefficients)
        assert factors.residual is not None
        assert bool(factors.residual.any())
    assert set(stage.learning) == {"residual"}


def test_stage_two_refuses_a_basis_of_zero(base, data, prior, tmp_path):
    stage = METHOD.build(METHOD.plan(small(), has_clips=True)[0], base, inputs(data, prior))
    METHOD.finish(stage, tmp_path)
    METHOD.release(stage)
    with pytest.raises(PipelineError, match="trained basis"):
        METHOD.build(METHOD.plan(small(), has_clips=True)[1], base, inputs(data, prior, tmp_path))


def test_one_dropout_mask_a_step_for_all_micro_batches_at_the_asked_rate(base, data, prior):
    stage = METHOD.build(METHOD.plan(small(identity_dropout=0.8), has_clips=True)[0], base, inputs(data, prior))
    stage.draw(0)
    masks = {path: mix.coefficient_mask.clone() for path, mix in stage.adapter._mixes.items()}
    stage.draw(1)
    assert any(not torch.equal(mix.coefficient_mask, masks[path]) for path, mix in stage.adapter._mixes.items())
    stage.draw(0)
    assert all(torch.equal(mix.coefficient_mask, masks[path]) for path, mix in stage.adapter._mixes.items())
    values = torch.cat([mask.flatten() for mask in masks.values()])
    assert set(values.unique().tolist()) <= {0.0, 5.0}  # kept elements are divided by the keep rate, 0.2
    assert float((values == 0).float().mean()) == pytest.approx(0.8, abs=0.03)


def test_dropout_of_stage_two_hits_what_was_asked(base, data, prior, tmp_path):
    settings = small()
    METHOD.release(trained(settings, base, data, prior, tmp_path / "one"))
    for mask_on, hit in (("B2", False), ("B1+B2", True)):
        spec = METHOD.plan(small(mask_on=mask_on), has_clips=True)[1]
        stage = METHOD.build(spec, base, inputs(data, prior, tmp_path / "one"))
        stage.draw(0)
        mix = next(iter(stage.adapter._mixes.values()))
        assert mix.residual_mask is not None
        assert (mix.coefficient_mask is not None) == hit
        METHOD.release(stage)


def test_learned_words_v_in_stage_one_u_in_stage_two(tiny_folder, data, prior, tmp_path):
    settings = small(special_tokens="encoder_output")
    base = load_base(str(tiny_folder))
    METHOD.release(trained(settings, base, data, prior, tmp_path / "one"))
    one = LearnedTokens.load(tmp_path / "one" / "tokens.safetensors")
    assert one.sentinels == {"subject": base.sentinel(0)}
    assert bool(one.vectors["subject"].any()), "it starts at zero and learns"
    trained(settings, base, data, prior, tmp_path / "two", index=1, previous=tmp_path / "one")
    two = LearnedTokens.load(tmp_path / "two" / "tokens.safetensors")
    assert torch.equal(two.vectors["subject"], one.vectors["subject"])
    assert bool(two.vectors["motion"].any())
    assert two.sentinels == {"subject": base.sentinel(0), "motion": base.sentinel(1)}
    prompts = METHOD.encoding(settings, base, "dog")
    assert prompts.learned == two.sentinels, "what is written is what was encoded"
    assert prompts.subject == f"{base.sentinel(0)} dog"


def test_a_prior_set_that_was_not_sampled_is_named(base, data):
    with pytest.raises(InputError, match="no prior set"):
        METHOD.build(METHOD.plan(small(), has_clips=True)[0], base, inputs(data, None))


def test_the_bases_own_samples_are_kept_better_with_prior_preservation(tiny_folder, data, tmp_path):
    """Six clips sampled from the base, four to preserve, two to look at; same draws of the concept in both arms."""
    from pipeline_lib.generation.sample import SamplingSettings, generate
    from pipeline_lib.training.data import LatentSet
    from pipeline_lib.training.prior import encode_prior, prior_prompts
    from pipeline_lib.training.text import TokenDropSettings

    base = load_base(str(tiny_folder))
    prompts = prior_prompts("dog", 6, seed=0)
    clips = [generate(base, prompt, seed, SamplingSettings.of(base.spec)) for seed, prompt in enumerate(prompts)]
    drop = TokenDropSettings(probability=0.0, variants=1)
    kept = encode_prior(base, clips[:4], prompts[:4], drop, seed=0)
    unseen = encode_prior(base, clips[4:], prompts[4:], drop, seed=0)

    def error(weight):
        settings = small(prior_weight=weight, identity_steps=120, identity_dropout=0.0, token_drop=0.0, batch=4)
        stage = trained(settings, load_base(str(tiny_folder)), data, kept, tmp_path / f"weight-{weight}")
        stage.validation = (LatentSet(unseen.frames.latents, unseen.frames.prompt), unseen.text)
        return stage.validate()

    assert error(1.0) < error(0.0)


def test_effective_rank_of_known_spectra():
    orthogonal = torch.linalg.qr(torch.randn(16, 4, generator=torch.Generator().manual_seed(0))).Q
    assert float(effective_rank(orthogonal.T, orthogonal)) == pytest.approx(4, abs=1e-3)
    assert float(effective_rank(orthogonal[:, :1].T.expand(4, -1), orthogonal)) == pytest.approx(1, abs=1e-3)


def test_what_is_off_by_default_is_no_part_of_a_key():
    """Runs that were trained before these settings came must be found again."""
    since = {"full_mask_share", "words_at", "live_drop", "self_conditioning", "estimate_probability"}
    of_others = {"learn_factors", "frame_share"}
    for spec in METHOD.plan(small(), has_clips=True):
        assert not (since | of_others) & set(spec.settings)
    changed = small(full_mask_share=0.1, special_tokens="encoder_input", self_conditioning="off")
    told = METHOD.plan(changed.model_copy(update={"self_conditioning_probability": 0.9}), has_clips=True)[0].settings
    assert since <= set(told)


def test_settings_of_one_stage_do_not_touch_the_key_of_the_other():
    one = METHOD.plan(small(), has_clips=True)
    two = METHOD.plan(small(motion_steps=9, motion_dropout=0.1), has_clips=True)
    assert one[0] == two[0]
    assert one[1] != two[1]


@pytest.mark.parametrize(("preset", "digest"), PRESET_DIGESTS.items())
def test_the_specs_of_the_presets_are_those_of_earlier_runs(preset, digest):
    """Byte by byte: what was trained under a preset is found again. A preset that is tuned anew gets a new line."""
    specs = METHOD.plan(settings_from(METHOD, preset, {}), has_clips=True)
    assert hashlib.sha256("\n".join(spec.model_dump_json() for spec in specs).encode()).hexdigest() == digest
