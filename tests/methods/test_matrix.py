"""One matrix over all methods: plans, starts, what moves, resume by parts, results on disk."""

from __future__ import annotations

import json

import pytest
import torch

from pipeline_lib.errors import ConfigError, InputError
from pipeline_lib.methods.baselines.dreammix import DreamMix
from pipeline_lib.methods.baselines.lora import PlainLora
from pipeline_lib.methods.baselines.textual_inversion import TextualInversion
from pipeline_lib.methods.baselines.two_stage import TwoStage
from pipeline_lib.methods.method import StageInputs
from pipeline_lib.methods.set_and_sequence.method import SetAndSequence
from pipeline_lib.methods.settings import settings_from
from pipeline_lib.models.load import load_base
from pipeline_lib.models.triple import LoraTriple
from pipeline_lib.registry import choose_method, choose_settings, method_names
from pipeline_lib.run_config import RunConfig
from pipeline_lib.sections import MethodSection
from pipeline_lib.training.checkpoint import Checkpoints
from pipeline_lib.training.loop import run_stage

SMALL = {"rank": 2, "batch": 2, "optimizer": {"learning_rate": 1e-2}}
METHODS = {
    "set_and_sequence": (SetAndSequence(), {**SMALL, "identity_steps": 4, "motion_steps": 4}),
    "set_and_sequence-input": (
        SetAndSequence(),
        {**SMALL, "identity_steps": 4, "motion_steps": 4, "basis": "input", "zero_factor": "coefficients"},
    ),
    "set_and_sequence-tokens": (
        SetAndSequence(),
        {**SMALL, "identity_steps": 4, "motion_steps": 4, "special_tokens": "encoder_output", "mask_on": "B1+B2"},
    ),
    "set_and_sequence-cheap": (
        SetAndSequence(),
        {**SMALL, "identity_steps": 4, "motion_steps": 4, "token_drop_mode": "pad", "prior_weight": 0},
    ),
    "set_and_sequence-input-words": (
        SetAndSequence(),
        {**SMALL, "identity_steps": 4, "motion_steps": 4, "special_tokens": "encoder_input"},
    ),
    "set_and_sequence-self-conditioning": (
        SetAndSequence(),
        {**SMALL, "identity_steps": 4, "motion_steps": 4, "self_conditioning": "on"},
    ),
    "two_stage": (TwoStage(), {**SMALL, "identity_steps": 4, "motion_steps": 4}),
    "two_stage-tokens": (
        TwoStage(),
        {**SMALL, "identity_steps": 4, "motion_steps": 4, "special_tokens": "encoder_output"},
    ),
    "lora": (PlainLora(), {**SMALL, "steps": 4}),
    "lora-prior": (PlainLora(), {**SMALL, "steps": 4, "prior_weight": 1.0}),
    "textual_inversion": (
        TextualInversion(),
        {"steps": 4, "batch": 2, "word_optimizer": {"learning_rate": 1e-2}},
    ),
    "dreammix": (DreamMix(), {**SMALL, "steps": 8}),
}


@pytest.fixture(params=METHODS)
def case(request):
    method, overrides = METHODS[request.param]
    return method, settings_from(method, "portable", overrides)


def train_all(method, settings, base, data, prior, folder):
    previous = None
    for spec in method.plan(settings, has_clips=True):
        inputs = StageInputs(data=data, prior=prior, previous=previous, seed=3, micro_batch=64)
        stage = method.build(spec, base, inputs)
        result = folder / spec.name
        result.mkdir(parents=True)
        run_stage(stage, Checkpoints(result, 100), on_step=lambda record: None)
        figures = method.finish(stage, result)
        method.release(stage)
        previous = result
        yield spec, result, figures


def test_a_plan_is_json_and_says_what_follows_what(case):
    method, settings = case
    specs = method.plan(settings, has_clips=True)
    assert [type(spec).model_validate_json(spec.model_dump_json()) for spec in specs] == specs
    names = [spec.name for spec in specs]
    assert len(set(names)) == len(names)
    assert [spec.after for spec in specs] == [None, *names[:-1]]


def test_images_only_plan_has_no_stage_on_clips(case):
    method, settings = case
    assert {spec.data for spec in method.plan(settings, has_clips=False)} == {"frames"}


def test_all_stages_train_only_the_adapter_and_leave_the_base(case, tiny_folder, data, prior, tmp_path):
    method, settings = case
    base = load_base(str(tiny_folder))
    before = {name: value.clone() for name, value in base.experts()[0][1].state_dict().items()}
    for spec, result, figures in train_all(method, settings, base, data, prior, tmp_path):
        triple = LoraTriple.load(result / "triple.safetensors")
        learns = spec.settings.get("learn_factors", True)
        assert triple.rank == (2 if learns else 1)
        assert all(bool(factors.basis.any()) == learns for factors in triple.layers.values()), spec.name
        assert ("effective_rank" in figures) == learns
        assert figures.get("effective_rank", 0.0) <= 2 + 1e-4
    after = base.experts()[0][1].state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    if spec.settings.get("words_at") != "encoder_input":
        assert base.encoder_calls <= 3  # the probes of text_embedding_rms, where words are learned


def test_a_method_run_twice_gives_the_same_bytes(case, tiny_folder, data, prior, tmp_path):
    method, settings = case
    runs = [
        [
            {path.name: path.read_bytes() for path in result.glob("*.safetensors") if path.stem != "checkpoint"}
            for _, result, _ in train_all(method, settings, load_base(str(tiny_folder)), data, prior, tmp_path / name)
        ]
        for name in ("one", "two")
    ]
    assert runs[0] == runs[1]


def test_a_stage_on_clips_refuses_images_by_name(case, base, data, prior):
    from dataclasses import replace

    from pipeline_lib.training.data import empty_set

    method, settings = case
    images = replace(data, windows=empty_set(data.windows.latents))
    spec = next(spec for spec in method.plan(settings, has_clips=True) if spec.data == "clips")
    with pytest.raises(InputError, match="images only"):
        method.build(spec, base, StageInputs(data=images, prior=prior, previous=None, seed=0, micro_batch=8))


@pytest.mark.parametrize("name", method_names())
def test_every_preset_is_valid_and_an_unknown_one_is_named(name):
    config = RunConfig(method=MethodSection(name=name, preset="paper"))
    method = choose_method(config).method
    assert method.name == name
    assert any(method.name == other.name for other, _ in METHODS.values()), "it has no row in the matrix"
    assert choose_settings(config)[1] == settings_from(method, "paper", {}), "the registry finds them without it"
    for preset in method.presets:
        settings = settings_from(method, preset, {})
        assert json.loads(settings.model_dump_json())
    with pytest.raises(ConfigError, match="nonesuch"):
        settings_from(method, "nonesuch", {})
