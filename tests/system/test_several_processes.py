"""Several processes of a stage end together: one of them is killed, asked to stop, or finds no finite loss."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from pipeline_lib.errors import NonFiniteError, StopRequested
from pipeline_lib.training.checkpoint import FILE_NAME
from tests.training.conftest import data, prior  # noqa: F401 - fixtures
from tests.training.several import IDENTITY, Bench, others

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
REPOSITORY = Path(__file__).parents[2]


def test_nobody_outlives_a_killed_worker(tmp_path: Path, tiny_folder: Path, data, prior) -> None:  # noqa: F811
    bench = Bench.made(tmp_path / "bench", tiny_folder, data, prior)
    command = [sys.executable, "-m", "tests.system.several_processes_program", str(bench.folder), str(tiny_folder)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        told = (json.loads(line) for line in worker.stdout)
        assert next(event for event in told if event.get("done"))
        (other,) = psutil.Process(worker.pid).children()
        worker.kill()
    end = time.monotonic() + 60
    while other.is_running() and other.status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
        time.sleep(0.1)
    assert not other.is_running() or other.status() == psutil.STATUS_ZOMBIE
    assert list(bench.folder.glob("store/work/stage/*/process-2.log"))


def test_a_stop_ends_all_with_a_checkpoint(tmp_path: Path, tiny_folder: Path, data, prior) -> None:  # noqa: F811
    bench, seen = Bench.made(tmp_path / "bench", tiny_folder, data, prior), list[int]()
    with pytest.raises(StopRequested, match="stopped after step 3 of 6"):
        bench.train(IDENTITY, 2, emit=lambda event: seen.append(event.get("done", 0)), stop=lambda: max(seen) == 2)
    assert others() == []
    assert list(bench.folder.glob(f"store/work/stage/*/{FILE_NAME}"))


def test_a_loss_that_is_not_finite_ends_all(tmp_path: Path, tiny_folder: Path, data, prior) -> None:  # noqa: F811
    frames = dataclasses.replace(data.frames, latents=torch.full_like(data.frames.latents, torch.nan))
    bench = Bench.made(tmp_path / "bench", tiny_folder, dataclasses.replace(data, frames=frames), prior)
    with pytest.raises(NonFiniteError, match=r"^stage identity, step 1"):
        bench.train(IDENTITY, 2)
    assert others() == []
