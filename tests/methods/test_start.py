"""Stages on a base with a LoRA of someone else, and stages that start from one."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline_lib.errors import InputError, StopRequested
from pipeline_lib.methods.baselines.dreammix import DreamMix
from pipeline_lib.methods.baselines.lora import PlainLora
from pipeline_lib.methods.baselines.two_stage import TwoStage
from pipeline_lib.methods.method import StageInputs
from pipeline_lib.methods.set_and_sequence.method import SetAndSequence
from pipeline_lib.methods.settings import settings_from
from pipeline_lib.models.adapter import Adapter, AdapterSettings
from pipeline_lib.models.load import load_base
from pipeline_lib.models.lora_file import used_loras
from pipeline_lib.models.lora_use import start_layers
from pipeline_lib.models.tiny import tiny_wan_a14b
from pipeline_lib.models.triple import SECOND_EXPERT
from pipeline_lib.records import LoraUse
from pipeline_lib.storage.tensors import save_tensors
from pipeline_lib.training.checkpoint import Checkpoints
from pipeline_lib.training.loop import run_stage
from tests.models.test_lora_use import lora_file

PLAIN = {"rank": 4, "batch": 2, "optimizer": {"learning_rate": 1e-2}}
SMALL = {**PLAIN, "prior_weight": 0.0}
METHODS = {
    "set_and_sequence": (SetAndSequence(), {**SMALL, "identity_steps": 4, "motion_steps": 4}),
    "set_and_sequence-input": (
        SetAndSequence(),
        {**SMALL, "identity_steps": 4, "basis": "input", "zero_factor": "coefficients"},
    ),
    "lora": (PlainLora(), {**SMALL, "steps": 4}),
    "two_stage": (TwoStage(), {**PLAIN, "identity_steps": 4, "motion_steps": 4}),
    "dreammix": (DreamMix(), {**PLAIN, "steps": 4}),
}


@pytest.fixture(params=METHODS)
def case(request):
    method, overrides = METHODS[request.param]
    spec = method.plan(settings_from(method, "portable", overrides), has_clips=True)[0]
    return method, spec.model_copy(update={"settings": {**spec.settings, "start": ["its identity"]}})


@pytest.fixture(scope="module")
def file(tiny_folder, tmp_path_factory) -> Path:
    """Of rank 3: one less than the adapters here have."""
    return lora_file(load_base(str(tiny_folder)), tmp_path_factory.mktemp("loras") / "start.safetensors")


def inputs(data, **more: Any) -> StageInputs:
    return StageInputs(data=data, prior=None, previous=None, seed=3, micro_batch=64, **more)


def used(file: Path, strength: float = 1.0):
    return used_loras([LoraUse(path=str(file), strength=strength)])


def test_a_stage_begins_at_the_function_of_its_start(case, tiny_folder, data, file):
    method, spec = case
    with_it, fresh = load_base(str(tiny_folder)), load_base(str(tiny_folder))
    with_it.loras = used(file, 0.7)
    started = method.build(spec, fresh, inputs(data, start=start_layers(used(file, 0.7), fresh)))
    merged = method.build(spec, with_it, inputs(data))
    unlike = method.build(spec, load_base(str(tiny_folder)), inputs(data))
    assert started.validate() == pytest.approx(merged.validate(), abs=1e-5)
    assert abs(unlike.validate() - merged.validate()) > 1e-3, "a test of nothing"
    started.draw(0)
    started.loss(started.draw(0))[0].backward()
    factors = started.trainable()
    learns = {name.rpartition(".")[2] for name, value in factors.items() if value.grad is not None and value.grad.any()}
    assert {"basis", "coefficients"} <= learns


def test_a_stage_with_both_goes_on_to_the_same_bits(case, tiny_folder, data, file, tmp_path):
    method, spec = case

    def stage():
        base = load_base(str(tiny_folder))
        base.loras = used(file, -0.5)
        return method.build(spec, base, inputs(data, start=start_layers(used(file), base)))

    def run(live, folder, stop_after=0):
        asked = itertools.count(1)
        folder.mkdir(exist_ok=True)
        run_stage(live, Checkpoints(folder, 2), on_step=lambda _: None, stop=lambda: next(asked) == stop_after)
        return dict(live.trainable())

    expected = run(stage(), tmp_path / "whole")
    with pytest.raises(StopRequested):
        run(stage(), tmp_path / "broken", stop_after=3)
    found = run(stage(), tmp_path / "broken")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_each_expert_starts_from_its_own(tmp_path):
    base = load_base(str(tiny_wan_a14b(tmp_path / "base")))
    file = lora_file(base, tmp_path / "x.safetensors")
    for use, prefixes in ((f"high={file}", {False}), (f"low={file}", {True}), (str(file), {False, True})):
        layers = start_layers(used_loras([LoraUse.model_validate(use)]), base)
        assert {path.startswith(SECOND_EXPERT) for path in layers} == prefixes
        denoisers = [denoiser for _, denoiser in base.experts()]
        adapter = Adapter.attach(denoisers, AdapterSettings(rank=4, targets=base.spec.lora_targets), 0)
        adapter.begin_with(layers)
        for path, (down, up) in adapter.triple().merged().items():
            wanted = layers[path][1] @ layers[path][0] if path in layers else torch.zeros(len(up), down.shape[1])
            torch.testing.assert_close(up @ down, wanted)
        adapter.detach()


def test_layers_that_no_adapter_has_cannot_be_a_start(base, tmp_path):
    path = tmp_path / "x.safetensors"
    pair = {"transformer.proj_out.lora_A.weight": torch.ones(2, 24)}
    rows = base.transformer.get_submodule("proj_out").out_features
    save_tensors(path, {**pair, "transformer.proj_out.lora_B.weight": torch.ones(rows, 2)})
    with pytest.raises(InputError, match=r"cannot start from .*x\.safetensors.*proj_out.*--lora"):
        start_layers(used(path), base)
