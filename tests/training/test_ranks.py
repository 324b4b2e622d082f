"""A stage in two processes is the stage in one: losses, the exported LoRA, checkpoints; a death ends them all."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline_lib.errors import ConfigError, WorkerError
from pipeline_lib.run_config import parse_config
from pipeline_lib.steps.step import StepResult
from tests.training.several import IDENTITY, MOTION, Bench, others

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]  # processes take long to start beside other work
REPOSITORY = Path(__file__).parents[2]
MakeBench = Callable[[str], Bench]


@pytest.fixture
def bench(tmp_path: Path, tiny_folder: Path, data, prior) -> MakeBench:
    return lambda name: Bench.made(tmp_path / name, tiny_folder, data, prior)


def assert_same(found: Bench, result: StepResult, expected: Bench, wanted: StepResult) -> None:
    for got, one in zip(found.losses(result), expected.losses(wanted), strict=True):
        assert got == pytest.approx(one, rel=1e-5, abs=1e-6)
    # Of updates, not of factors: where a gradient is all rounding, Adam makes a step of it.
    ours, theirs = updates(found.lora(result)), updates(expected.lora(wanted))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-5, msg=name)


def updates(lora: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    downs = {name.removesuffix(".lora_A.weight"): value for name, value in lora.items() if "lora_A" in name}
    return {name: lora[f"{name}.lora_B.weight"] @ down for name, down in downs.items()}


def test_two_processes_train_both_stages_as_one_does(bench: MakeBench) -> None:
    alone, both, steps = bench("alone"), bench("both"), list[Any]()
    for spec in (IDENTITY, MOTION):
        expected = alone.train(spec, 1)
        found = both.train(spec, 2, emit=lambda event: steps.append(event.get("done")))
        assert_same(both, found, alone, expected)
        alone.inputs["after"], both.inputs["after"] = expected.ref, found.ref
        if spec is IDENTITY:
            assert found.ref.key == expected.ref.key
    assert [step for step in steps if step] == [*range(1, 7)] * 2
    assert others() == []
    assert not torch.distributed.is_initialized()


def test_a_killed_process_ends_the_stage_and_one_alone_goes_on(bench: MakeBench) -> None:
    broken, whole = bench("broken"), bench("whole")

    def kill(event: dict[str, Any]) -> None:
        if event.get("done") == 2:
            (other,) = others()
            other.kill()

    with pytest.raises(WorkerError, match="process 2 of 2: the worker was killed by SIGKILL"):
        broken.train(IDENTITY, 2, emit=kill)
    assert others() == []
    assert not torch.distributed.is_initialized()
    assert_same(broken, broken.train(IDENTITY, 1), whole, whole.train(IDENTITY, 1))


def test_processes_add_up_and_agree_and_notice_a_death(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.training.ranks_program", str(tmp_path)]
    running = [subprocess.Popen([*command, str(rank)], cwd=REPOSITORY) for rank in (0, 1)]
    assert [process.wait(250) for process in running] == [0, -signal.SIGKILL]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["gradients"] == [[3.0] * 6, [0.0, 1.0, 2.0, 3.0], None]
    assert first["metrics"] == {"loss": 0.5, "part": 1.0}
    assert first["agreed"] == [False, True]
    assert (tmp_path / "lost").read_text().startswith("another process of the stage is gone: ")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"device": "cuda:1"}, "2 processes take one GPU each, but device names one: cuda:1"),
        ({"swapped_blocks": 1, "gradient_checkpointing": True}, "do not go with swapped_blocks or compile"),
        ({"compile": True}, "do not go with swapped_blocks or compile"),
    ],
)
def test_settings_that_do_not_go_with_several_processes(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_config({"training": {"processes": 2, **settings}})


def test_more_processes_than_samples_are_refused(bench: MakeBench) -> None:
    with pytest.raises(ConfigError, match="7 processes share the samples of a step; got 6 samples in stage identity"):
        bench("many").train(IDENTITY, 7)
    assert others() == []
