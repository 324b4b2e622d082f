"""A whole run on a base in parts, by the setting: the run of one process, and a base that is whole again afterwards."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline_lib import load_concept
from pipeline_lib.models.load import load_base
from pipeline_lib.models.triple import LoraTriple
from pipeline_lib.personalize import run_in_process
from pipeline_lib.steps.layout import LOSSES_FILE
from pipeline_lib.steps.run_folder import RunFolder, RunResult
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.training.sharding import bytes_held
from pipeline_lib.training.stage import Stage
from tests.steps.tiny import small_clip, tiny_config

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]  # processes take long to start beside other work
STAGES = ("train-identity", "train-motion")


class Ran:
    """A run in a state folder of its own, and the base's bytes in this process while each stage trained."""

    def __init__(self, state: Path, base: Path, clip: Path, *settings: str) -> None:
        self.state = StateFolder.open(state)
        self.held: dict[str, int] = {}
        self.result: RunResult = run_in_process(tiny_config(base, [clip], *settings), self.state, self._look)

    def _look(self, event: dict[str, Any]) -> None:
        if event["event"] == "progress" and event["step"] in STAGES and event["step"] not in self.held:
            (stage,) = (thing for thing in gc.get_objects() if type(thing) is Stage)
            self.held[event["step"]] = bytes_held(stage)

    def losses(self, step: str) -> list[dict[str, float]]:
        record = RunFolder(self.state, self.result.run_id).record()
        assert record is not None
        path = self.state.store.folder(record.steps[step].ref) / LOSSES_FILE
        return [json.loads(line) for line in path.read_text().splitlines()]

    def updates(self) -> dict[str, torch.Tensor]:
        merged = LoraTriple.load(Path(self.result.concept) / "triple.safetensors").merged()
        return {name: up @ down for name, (down, up) in merged.items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> tuple[Ran, Ran]:
    folder = tmp_path_factory.mktemp("sharded")
    clip = small_clip(folder / "red square.mp4")
    cpu, parts = "training.device=cpu", ("training.processes=2", "training.sharded=true")
    return Ran(folder / "alone", tiny_folder, clip, cpu), Ran(folder / "parts", tiny_folder, clip, cpu, *parts)


@pytest.mark.parametrize("step", STAGES)
def test_losses_are_those_of_one_process(runs: tuple[Ran, Ran], step: str) -> None:
    alone, parts = runs
    for got, one in zip(parts.losses(step), alone.losses(step), strict=True):
        assert got == pytest.approx(one, rel=1e-5, abs=1e-6)


def test_the_concept_is_that_of_one_process_and_loads(runs: tuple[Ran, Ran], tiny_folder: Path) -> None:
    alone, parts = runs
    assert parts.result.run_id == alone.result.run_id, "the setting is no part of what a run is"
    expected = alone.updates()
    for name, update in parts.updates().items():
        torch.testing.assert_close(update, expected[name], rtol=0, atol=1e-5, msg=name)
    assert load_concept(load_base(str(tiny_folder)).pipeline(), parts.result.concept).trigger
    assert parts.result.scores["personalised"]["mse"] == pytest.approx(
        alone.result.scores["personalised"]["mse"], rel=1e-3
    )


@pytest.mark.parametrize("step", STAGES)
def test_half_of_the_base_is_in_each_process(runs: tuple[Ran, Ran], step: str) -> None:
    alone, parts = runs
    assert 0.45 * alone.held[step] < parts.held[step] < 0.55 * alone.held[step]
