"""One matrix over the families: both stages train, only the adapter moves, a stopped stage goes on to the same bits,
and each way to save memory or time leaves the result what it was."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.utils.flop_counter import FlopCounterMode

from pipeline_lib.errors import StopRequested
from pipeline_lib.methods.method import StageInputs
from pipeline_lib.methods.set_and_sequence.method import SetAndSequence
from pipeline_lib.methods.set_and_sequence.settings import SetAndSequenceSettings
from pipeline_lib.models.base import BaseModel
from pipeline_lib.models.block_swap import SwappedBlocks
from pipeline_lib.models.economy import Economy, Storage
from pipeline_lib.models.families import FAMILIES
from pipeline_lib.models.load import load_base
from pipeline_lib.models.tiny import tiny_wan, tiny_wan_a14b, tiny_wan_ti2v
from pipeline_lib.models.tiny_cogvideox import tiny_cogvideox
from pipeline_lib.models.tiny_hunyuan import tiny_hunyuan
from pipeline_lib.models.tiny_ltx import tiny_ltx
from pipeline_lib.models.triple import LoraTriple
from pipeline_lib.training.checkpoint import Checkpoints
from pipeline_lib.training.data import TrainingData
from pipeline_lib.training.encode import EncodingSettings, encode_training_data
from pipeline_lib.training.loop import run_stage
from pipeline_lib.training.stage import Stage
from tests.training.conftest import CAPTION, DROP, clip_of, moving_square

# name: family, maker of the folder
FOLDERS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "wan 2.1": ("wan", tiny_wan),
    "wan 2.2 5B": ("wan", tiny_wan_ti2v),
    "wan 2.2 A14B": ("wan", tiny_wan_a14b),
    "ltx": ("ltx", tiny_ltx),
    "cogvideox 5b": ("cogvideox", tiny_cogvideox),
    "cogvideox 2b": ("cogvideox", lambda folder: tiny_cogvideox(folder, rotary=False)),
    "hunyuan": ("hunyuan", tiny_hunyuan),
}
SETTINGS = SetAndSequenceSettings.model_validate(
    {
        "rank": 2,
        "batch": 3,
        "identity_steps": 4,
        "motion_steps": 4,
        "special_tokens": "encoder_output",
        "prior_weight": 0,
        "optimizer": {"learning_rate": 1e-2, "token_learning_rate": 1e-2},
    }
)
METHOD = SetAndSequence()
PLAN = METHOD.plan(SETTINGS, has_clips=True)


def test_every_family_is_in_the_matrix() -> None:
    assert {family for family, _ in FOLDERS.values()} == set(FAMILIES)


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FOLDERS[request.param][1](tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def data(folder: Path) -> TrainingData:
    base = load_base(str(folder))
    rules = base.spec.frame_rules
    learned = {"subject": base.sentinel(0), "motion": base.sentinel(1)}
    settings = EncodingSettings(
        num_frames=3, drop=DROP, subject=f"{base.sentinel(0)} dog", motion=base.sentinel(1), learned=learned
    )
    frames = np.kron(moving_square(rules.num_frames + 1), np.ones((1, rules.height // 32, rules.width // 32, 1)))
    return encode_training_data(base, [clip_of(frames.astype(np.uint8))], [CAPTION], settings)


def stage_of(base: BaseModel, data: TrainingData, number: int = 0, previous: Path | None = None) -> Stage:
    inputs = StageInputs(data=data, prior=None, previous=previous, seed=5, micro_batch=64)
    return METHOD.build(PLAN[number], base, inputs)


def run(stage: Stage, folder: Path, stop_after: int = 0) -> list[float]:
    seen: list[Any] = []
    asked = itertools.count(1)
    folder.mkdir(parents=True, exist_ok=True)
    run_stage(stage, Checkpoints(folder, 100), on_step=seen.append, stop=lambda: next(asked) == stop_after)
    return [record.metrics["loss"] for record in seen]


def weights(base: BaseModel) -> dict[str, Tensor]:
    return {
        f"{number}.{name}": value.clone()
        for number, (_, denoiser) in enumerate(base.experts())
        for name, value in denoiser.state_dict().items()
    }


def test_both_stages_train_and_only_the_adapter_moves(folder: Path, data: TrainingData, tmp_path: Path) -> None:
    base = load_base(str(folder))
    before, previous = weights(base), None
    for number, spec in enumerate(PLAN):
        stage = stage_of(base, data, number, previous)
        start = {name: value.detach().clone() for name, value in stage.trainable().items()}
        losses = run(stage, tmp_path / spec.name)
        assert len(losses) == spec.steps and np.isfinite(losses).all()
        moved = [name for name, value in stage.trainable().items() if not torch.equal(value, start[name])]
        # With two experts, one whose sigmas were not drawn in these few steps keeps its factors.
        assert len(moved) >= len(start) // (2 * len(base.experts())), spec.name
        METHOD.finish(stage, tmp_path / spec.name)
        METHOD.release(stage)
        previous = tmp_path / spec.name
    assert previous is not None
    triple = LoraTriple.load(previous / "triple.safetensors")
    assert triple.has_residual and len(triple.layers) >= len(base.spec.lora_targets)
    after = weights(base)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_stopped_stage_goes_on_to_the_same_bits(folder: Path, data: TrainingData, tmp_path: Path) -> None:
    whole = stage_of(load_base(str(folder)), data)
    expected = run(whole, tmp_path / "whole")
    with pytest.raises(StopRequested):
        run(stage_of(load_base(str(folder)), data), tmp_path / "broken", stop_after=2)
    resumed = stage_of(load_base(str(folder)), data)
    assert run(resumed, tmp_path / "broken") == expected
    values = dict(resumed.trainable())
    assert all(torch.equal(values[name], value) for name, value in whole.trainable().items())


def gradients(stage: Stage) -> dict[str, Tensor]:
    """Of one step, from factors that are not zero."""
    draw = torch.Generator().manual_seed(1)
    for value in stage.trainable().values():
        value.data = torch.randn(value.shape, generator=draw) * 0.1
        value.grad = None
    stage.loss(stage.draw(0))[0].backward()
    return {name: value.grad.clone() for name, value in stage.trainable().items() if value.grad is not None}


@pytest.fixture
def stage(folder: Path, data: TrainingData) -> Iterator[Stage]:
    made = stage_of(load_base(str(folder)), data)
    yield made
    METHOD.release(made)


def test_recomputation_and_swapped_blocks_give_the_same_gradients(stage: Stage) -> None:
    expected = gradients(stage)
    base = stage.base
    base.set_gradient_checkpointing(True)
    recomputed = gradients(stage)
    swapped = SwappedBlocks(base.blocks(), torch.device("cpu"))
    found = gradients(stage)
    assert swapped.arrivals >= 2  # with two experts, those of one may stay away
    assert expected.keys() == recomputed.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(recomputed[name], value, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5)


def test_attention_that_is_kept_is_the_same_bits_and_is_not_computed_again(stage: Stage) -> None:
    found, flops, attention = [], [], []
    for recomputed, kept in ((False, False), (True, False), (True, True)):
        stage.base.set_gradient_checkpointing(recomputed, keep_attention=kept)
        with FlopCounterMode(display=False) as counter:
            found.append(gradients(stage))
        flops.append(counter.get_total_flops())
        counts = counter.get_flop_counts()["Global"]
        attention.append(sum(n for name, n in counts.items() if "attention" in str(name) and "back" not in str(name)))
    plain, recomputed_all, kept_attention = attention  # that outside of the blocks is never computed again
    assert 0 < plain == kept_attention < recomputed_all
    assert flops[1] - flops[2] == recomputed_all - plain
    assert all(torch.equal(found[2][name], value) for name, value in found[1].items())


def stored(base: BaseModel) -> int:
    """Bytes of the frozen matrices in blocks; with those in 4 bits their scales, without the tables of each layer."""
    total = 0
    for block in base.blocks():
        for value in block.parameters():
            if value.ndim == 2 and not value.requires_grad:
                scales = [value.absmax, value.nested_absmax] if hasattr(value, "quant_state") else []
                total += sum(kept.numel() * kept.element_size() for kept in (value, *scales))
    return total


NF4 = pytest.param("nf4", 0.25, 0.1, marks=pytest.mark.skipif(not find_spec("bitsandbytes"), reason="no bitsandbytes"))


@pytest.mark.parametrize(("storage", "smaller", "near"), [("fp8", 0.6, 0.05), NF4])
def test_storage_in_fewer_bits_is_near_and_much_smaller(
    folder: Path, data: TrainingData, stage: Stage, tmp_path: Path, storage: Storage, smaller: float, near: float
) -> None:
    base = load_base(str(folder), economy=Economy(storage=storage))
    base.set_gradient_checkpointing(True)
    small = stage_of(base, data)
    expected = stage.validate()
    assert abs(small.validate() - expected) < near * expected
    assert stored(base) < smaller * stored(stage.base)  # what norms are modulated by stays as it is in 8 bits
    assert all(bool(value.any()) for value in gradients(small).values())
    assert all(value.dtype == torch.float32 for value in small.trainable().values())
    METHOD.release(small)
    before, previous = weights(base), None
    for number, spec in enumerate(PLAN):
        small = stage_of(base, data, number, previous)
        assert np.isfinite(run(small, tmp_path / spec.name)).all()
        METHOD.finish(small, tmp_path / spec.name)
        METHOD.release(small)
        previous = tmp_path / spec.name
    assert all(torch.equal(value, before[name]) for name, value in weights(base).items())


def test_compiled_blocks_share_their_graphs(stage: Stage) -> None:
    expected = gradients(stage)
    torch._dynamo.reset()
    counter = CompileCounter()
    kinds = {type(block) for block in stage.base.blocks()}
    for block in stage.base.blocks():
        block.compile(backend=counter)
    found = gradients(stage)
    graphs = counter.frame_count
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)
    # The first block's input needs no gradient, all others' does.
    assert graphs <= 2 * len(kinds)
    gradients(stage)
    assert counter.frame_count == graphs, "the same shapes again compile nothing"
    torch._dynamo.reset()
