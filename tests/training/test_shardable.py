"""Which stages can keep their base in parts: those whose processes call it alike; others are told what to change."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline_lib.errors import ConfigError
from pipeline_lib.methods.method import StageInputs
from pipeline_lib.methods.set_and_sequence.method import SetAndSequence
from pipeline_lib.models.load import load_base
from pipeline_lib.models.tiny import tiny_wan_a14b
from pipeline_lib.records import StageSpec
from pipeline_lib.training.sharding import check_shardable
from pipeline_lib.training.stage import Stage
from tests.training.several import IDENTITY


def stage_of(folder: Path, data, prior, spec: StageSpec = IDENTITY) -> Stage:
    inputs = StageInputs(data=data, prior=prior, previous=None, seed=5, micro_batch=2)
    return SetAndSequence().build(spec, load_base(str(folder)), inputs)


def test_samples_are_shared_out_evenly_or_not_at_all(tiny_folder: Path, data, prior) -> None:
    stage = stage_of(tiny_folder, data, prior)
    check_shardable(stage, 3)
    with pytest.raises(
        ConfigError, match="each of 4 processes needs as many samples of a step; got 6 samples in stage"
    ):
        check_shardable(stage, 4)


def test_two_experts_are_not_called_alike(tmp_path: Path, data, prior) -> None:
    with pytest.raises(ConfigError, match="two experts cannot be shared out"):
        check_shardable(stage_of(tiny_wan_a14b(tmp_path / "base"), data, prior), 2)


def test_self_conditioning_can_be_switched_off(tiny_folder: Path, data, prior) -> None:
    spec = IDENTITY.model_copy(update={"settings": {**IDENTITY.settings, "self_conditioning": "on"}})
    with pytest.raises(ConfigError, match=r"set method\.settings\.self_conditioning to off"):
        check_shardable(stage_of(tiny_folder, data, prior, spec), 2)
