"""The base's sibling: a LoRA on it that draws the world's second look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from pipeline_lib.errors import ConfigError
from pipeline_lib.models.folder import PipelineFolder
from pipeline_lib.pocket import sibling
from pipeline_lib.pocket.base_data import LatentSource
from pipeline_lib.pocket.contact_sheet import sample
from pipeline_lib.pocket.latents_cache import LatentShard
from pipeline_lib.pocket.pieces import Piece
from pipeline_lib.pocket.tokenizer import build_tokenizer
from pipeline_lib.pocket.zoo import zoo_root
from pipeline_lib.registry import BASES, base_source, loras_on_base, open_base
from pipeline_lib.run_config import RunConfig, with_settings
from pipeline_lib.world.sampling import sample_scene

BASE = zoo_root() / "base"
TINY = sibling.SiblingSettings(steps=8, rank=2, clip_batch=1, image_clips=2)
OUTLINED = "pocket-outline"


@pytest.fixture(scope="module")
def source() -> LatentSource:
    made = LatentSource(Path("nowhere"), build_tokenizer(), "", mix=sibling.OUTLINE_MIX)
    draw = torch.Generator().manual_seed(0)
    made.shards[0] = LatentShard(
        latents=torch.randn(4, 13, 16, 8, 8, generator=draw).half(),
        occupancy=torch.rand(4, 13, 8, 8, generator=draw).half(),
        scenes=tuple(sample_scene(5, index, sibling.OUTLINE_MIX) for index in range(4)),
    )
    return made


def test_training_learns_moves_only_the_lora_and_goes_on_as_if_it_had_not_stopped(
    source: LatentSource, tmp_path: Path
) -> None:
    whole = sibling.SiblingTrainer(Piece(tmp_path / "whole", "s", 1.0), source, TINY, BASE)
    frozen = {name: value.clone() for name, value in whole.model.named_parameters() if not value.requires_grad}
    losses = [whole.advance() for _ in range(4)]
    half = sibling.SiblingTrainer(Piece(tmp_path / "half", "s", 1.0), source, TINY, BASE)
    half.advance()
    half.save(tmp_path / "half" / "zoo")
    with safe_open(tmp_path / "half" / "zoo" / sibling.LORA_NAME, framework="np") as file:
        assert file.metadata()["mannerism.base_digest"] == PipelineFolder(BASE).digest()
    rest = sibling.SiblingTrainer(Piece(tmp_path / "half", "s", 1.0), source, TINY, BASE)
    assert rest.step == 1
    assert [rest.advance() for _ in range(3)] == losses[1:]
    assert all(torch.equal(one, other) for one, other in zip(whole.learning, rest.learning, strict=True))
    assert any(value.abs().sum() > 0 for value in whole.adapter.factors("basis").values())
    for name, value in whole.model.named_parameters():
        assert name not in frozen or torch.equal(value, frozen[name]), name


def test_the_sibling_is_the_pocket_base_with_its_lora_before_others() -> None:
    config = with_settings(RunConfig(), [f"base.source={OUTLINED}", "base.loras=[own.safetensors:0.5]"])
    named, own = loras_on_base(config)
    assert Path(named.path) == BASES[OUTLINED].loras[0] and named.strength == 1.0
    assert (own.path, own.strength) == ("own.safetensors", 0.5)
    assert base_source(config) == str(BASE)
    assert loras_on_base(RunConfig()) == ()


def test_a_sibling_that_is_not_there_is_no_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BASES, OUTLINED, BASES[OUTLINED]._replace(loras=(Path("nowhere.safetensors"),)))
    with pytest.raises(ConfigError, match="not part of this installation"):
        base_source(with_settings(RunConfig(), [f"base.source={OUTLINED}"]))


def saturation(frames: np.ndarray) -> float:
    return float((frames.max(axis=-1).astype(float) - frames.min(axis=-1)).mean())


def test_the_sibling_draws_in_the_second_look() -> None:
    """That look is pale: in the world itself its colours have under half of the first look's saturation."""
    prompts = ["a yellow circle standing still on a beach", "a pink square standing still in a desert"]
    found = {}
    for name in ("pocket", OUTLINED):
        base = open_base(with_settings(RunConfig(), [f"base.source={name}"]), "cpu", "float32")
        found[name] = saturation(sample(base.pipeline(), prompts, num_frames=1, steps=10))
    assert found[OUTLINED] < 0.7 * found["pocket"], found
