"""A base in parts, one in each of two processes: the same losses and updates, half of the bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline_lib.models.triple import LoraTriple
from pipeline_lib.training.ranks import ALONE
from tests.training.sharding_program import main

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]  # processes take long to start beside other work
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, data, prior) -> Path:
    """Both stages: in this process, and then in two."""
    folder = tmp_path_factory.mktemp("sharding")
    (folder / "base").symlink_to(tiny_folder)
    for name, part in (("data", data), ("prior", prior)):
        (folder / name).mkdir()
        part.save(folder / name)
    main(folder, ALONE)
    command = [sys.executable, "-m", "tests.training.sharding_program", str(folder)]
    running = [subprocess.Popen([*command, str(rank), "2"], cwd=REPOSITORY) for rank in (0, 1)]
    assert [process.wait() for process in running] == [0, 0]
    return folder


def found(folder: Path, rank: int, count: int, number: int) -> Any:
    return json.loads((folder / f"{rank}-of-{count}" / str(number) / "found.json").read_text())


@pytest.mark.parametrize("number", [0, 1], ids=["identity", "motion, recomputed"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_base_in_parts_trains_as_a_whole_one_does(trained: Path, number: int, rank: int) -> None:
    whole, part = found(trained, 0, 1, number), found(trained, rank, 2, number)
    for got, one in zip(part["curve"], whole["curve"], strict=True):
        assert got == pytest.approx(one, rel=1e-5, abs=1e-6)
    ours, theirs = (
        LoraTriple.load(trained / name / str(number) / "triple.safetensors").merged()
        for name in (f"{rank}-of-2", "0-of-1")
    )
    for name, (down, up) in theirs.items():
        torch.testing.assert_close(ours[name][1] @ ours[name][0], up @ down, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("number", [0, 1])
def test_each_process_holds_half_of_the_base(trained: Path, number: int) -> None:
    whole = found(trained, 0, 1, number)["held"]
    held = [found(trained, rank, 2, number)["held"] for rank in (0, 1)]
    assert max(held) < 0.55 * whole
    assert sum(held) < 1.05 * whole
