"""Killed at any stage, worker or parent, and run again: the same bits. Slow; run by make test-system."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from pipeline_lib.personalize import run_in_process
from pipeline_lib.run_config import RunConfig, config_text
from pipeline_lib.steps.run_folder import RunFolder, run_identity
from pipeline_lib.steps.state import StateFolder
from tests.steps.tiny import small_clip, tiny_config

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]

STEPS = 60
Reached = Callable[[Path], bool]


def building(kind: str, count: int = 1) -> Reached:
    """Whether the n-th artifact of a kind is being built, or was."""
    return lambda store: len(list(store.glob(f"locks/{kind}/*.lock"))) >= count


def checkpointed(store: Path) -> bool:
    """Whether a stage has written a checkpoint."""
    return any(store.glob("work/stage/*/checkpoint.safetensors"))


def trained(count: int) -> Reached:
    """Whether some stages are done and the next has written a checkpoint."""
    return lambda store: len(list(store.glob("artifacts/stage/*/manifest.json"))) >= count and checkpointed(store)


MOMENTS: dict[str, Reached] = {
    "prepare": building("clips"),
    "caption": building("captions"),
    "generate-base": building("samples"),
    "encode": building("latents"),
    "prior": building("prior"),
    "train-identity": checkpointed,
    "train-motion": trained(1),
    "generate-personalised": building("samples", 2),
    "evaluate": building("scores"),
    "concept": building("concept"),
    "report": building("report"),
}


class Setup(NamedTuple):
    config: RunConfig
    path: Path
    digests: dict[str, str]


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Setup:
    """A config, and the bits of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("setup")
    steps = [f"method.settings.{stage}_steps={STEPS}" for stage in ("identity", "motion")]
    config = tiny_config(tiny_folder, [small_clip(folder / "red.mp4")], *steps, "training.checkpoint_every=5")
    path = folder / "run.yaml"
    path.write_text(config_text(config))
    state = StateFolder.open(folder / "state")
    run_in_process(config, state, lambda _event: None)
    return Setup(config, path, digests(config, state))


def digests(config: RunConfig, state: StateFolder) -> dict[str, str]:
    record = RunFolder(state, run_identity(config)).record()
    assert record is not None
    assert record.status == "done"
    return {name: step.ref.digest for name, step in record.steps.items() if name != "report"}


class Command:
    """`mannerism run --json` in a process of its own."""

    def __init__(self, setup: Setup, state: Path, **limits: int) -> None:
        self.state = state
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli.main", "run", str(setup.path), "--json"],
            env={**os.environ, "MANNERISM_STATE": str(state), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=state.parent,
        )
        self._parent = psutil.Process(self.process.pid)

    def wait_for(self, reached: Reached, seconds: float = 240) -> bool:
        """Whether a worker lived at that moment; False when the command ended before."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if reached(self.state / "store") and self.worker() is not None:
                return True
            if self.process.poll() is not None:
                return False
            time.sleep(0.02)
        raise AssertionError("the moment never came")

    def worker(self) -> psutil.Process | None:
        """The worker child, if there is one."""
        for child in self._children():
            if "pipeline_lib.worker" in child.cmdline():
                return child
        return None

    def kill(self) -> list[psutil.Process]:
        """Kills the parent; returns the children that it leaves behind."""
        children = self._children()
        self.process.kill()
        self.process.communicate()
        return children

    def end(self) -> tuple[int, str, str]:
        output, errors = self.process.communicate(timeout=300)
        return self.process.returncode, output, errors

    def _children(self) -> list[psutil.Process]:
        try:
            return self._parent.children(recursive=True)
        except psutil.NoSuchProcess:
            return []


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "state"
    left = [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(tmp_path) in " ".join(process.info["cmdline"] or [])
    ]
    psutil.wait_procs(left, timeout=60)
    assert not [process for process in left if process.is_running()], "a process was left behind"


def test_a_worker_killed_in_every_stage_is_started_again_in_the_same_run(setup: Setup, state: Path) -> None:
    command = Command(setup, state)
    killed = []
    for stage, reached in MOMENTS.items():
        if not command.wait_for(reached):
            break
        worker = command.worker()
        if worker is not None:
            worker.kill()
            psutil.wait_procs([worker], timeout=10)
            killed.append(stage)
    code, output, errors = command.end()
    assert code == 0, errors
    assert len(killed) >= len(MOMENTS) - 2, f"too quick: only {killed}"
    assert json.loads(output.splitlines()[-1])["scores"]
    assert digests(setup.config, StateFolder.open(state)) == setup.digests


def test_a_parent_killed_in_every_stage_goes_on_when_started_again(setup: Setup, state: Path) -> None:
    killed = []
    for stage, reached in MOMENTS.items():
        command = Command(setup, state)
        if not command.wait_for(reached):
            break
        children = command.kill()
        killed.append(stage)
        _, alive = psutil.wait_procs(children, timeout=60)
        assert not alive, f"killed in {stage}: {[child.cmdline() for child in alive]} live on"
    else:
        command = Command(setup, state)
    code, _, errors = command.end()
    assert code == 0, errors
    assert len(killed) >= len(MOMENTS) - 2, f"too quick: only {killed}"
    assert digests(setup.config, StateFolder.open(state)) == setup.digests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_stop_checkpoints_and_says_how_to_go_on(setup: Setup, state: Path, number: signal.Signals) -> None:
    command = Command(setup, state)
    assert command.wait_for(checkpointed)
    command.process.send_signal(number)
    code, output, errors = command.end()
    assert code == 130, errors
    assert "run the same command again" in json.loads(output.splitlines()[-1])["error"]
    assert "Traceback" not in errors
    folder = RunFolder(StateFolder.open(state), run_identity(setup.config))
    record = folder.record()
    assert record is not None
    assert record.status != "done"
    again = Command(setup, state)
    code, _, errors = again.end()
    assert code == 0, errors
    assert digests(setup.config, StateFolder.open(state)) == setup.digests


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A real file system of that size; skips the test where none can be mounted."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_is_full_from_the_start_keeps_no_half_run_folder(setup: Setup, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "8k") as small:
        (small / "other").write_bytes(bytes(8192))
        code, _, errors = Command(setup, small / "state").end()
        assert code == 1, errors
        (line,) = errors.splitlines()
        assert "disk full" in line
        assert not [path for path in small.glob("state/**/*") if path.is_file()]
        assert not list(small.glob("state/runs/*"))


def test_a_disk_that_fills_up_is_one_clear_line_and_nothing_half_written(setup: Setup, tmp_path: Path) -> None:
    # Half of what a whole run leaves, so that no run fits, however small runs become.
    whole = sum(path.stat().st_size for path in (setup.path.parent / "state").rglob("*") if path.is_file())
    with small_disk(tmp_path / "small", f"{whole // 2048}k") as small:
        code, _, errors = Command(setup, small / "state").end()
        assert code == 1, errors
        assert "disk full" in errors.lower() or "no space" in errors.lower(), errors
        assert "Traceback" not in errors
        assert not list(small.glob("state/store/tmp/*/*"))
