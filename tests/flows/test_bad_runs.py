"""Mistakes that only the worker can see: one clear line, exit code 2, no retry, nothing half-written."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline_lib.steps.state import StateFolder
from tests.flows.conftest import command
from tests.steps.tiny import options, small_clip


@pytest.mark.parametrize(
    ("what", "more", "said"),
    [
        ("truncated", [], "clip.mp4"),
        ("whole", ["--base", "nowhere/base"], "nowhere/base"),
    ],
)
def test_bad_runs(state: StateFolder, tmp_path: Path, tiny_folder: Path, what: str, more: list[str], said: str) -> None:
    clip = small_clip(tmp_path / "clip.mp4", num_frames=24)
    if what == "truncated":
        clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 3])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANNERISM_STATE", str(tmp_path / "state"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        code, output, errors = command(["run", str(clip), *options(tiny_folder), *more])
    assert code == 2, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert said in line
    assert "Traceback" not in errors + output
    assert not list(tmp_path.glob("state/store/artifacts/*/*"))
    assert not list(tmp_path.glob("state/store/tmp/*/*"))
    assert not list(tmp_path.glob("state/logs/error-*"))
