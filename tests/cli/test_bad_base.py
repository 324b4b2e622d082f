"""A base that could not be used is told in one line, before anything is loaded or left behind; of every family."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.models.families import family_of
from pipeline_lib.models.folder import CARD_NAME, PipelineFolder
from pipeline_lib.models.load import load_base
from pipeline_lib.records import FrameRules
from tests.cli.test_bad_input import check_refused, command, state
from tests.families.test_matrix import FOLDERS
from tests.steps.tiny import options, small_clip

__all__ = ["state"]


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FOLDERS[request.param][1](tmp_path_factory.mktemp("family"))


@pytest.fixture
def own_folder(folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(folder, tmp_path / "base"))


def rules_of(folder: Path) -> FrameRules:
    opened = PipelineFolder(folder)
    return family_of(opened).frame_rules(opened)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_they_are_the_rules_of_the_base(folder: Path) -> None:
    assert rules_of(folder) == load_base(str(folder)).spec.frame_rules


def test_without_a_card_they_are_too_or_the_same_is_missing(own_folder: Path) -> None:
    (own_folder / CARD_NAME).unlink()
    try:
        rules = load_base(str(own_folder)).spec.frame_rules
    except InputError as error:
        with pytest.raises(InputError) as found:
            rules_of(own_folder)
        assert str(found.value) == str(error)
    else:
        assert rules_of(own_folder) == rules


def longer(rules: FrameRules) -> tuple[dict[str, Any], str]:
    return {
        "num_frames": rules.num_frames + 1
    }, f"{rules.num_frames} or {rules.num_frames + rules.frame_multiple} frames"


def wider(rules: FrameRules) -> tuple[dict[str, Any], str]:
    return {"width": rules.width + 1}, f"width {rules.width} or {rules.width + rules.size_multiple}"


@pytest.mark.parametrize("change", [longer, wider])
def test_the_nearest_length_or_size_is_named(
    state: Path, own_folder: Path, tmp_path: Path, change: Callable[[FrameRules], tuple[dict[str, Any], str]]
) -> None:
    changes, near = change(rules_of(own_folder))
    edit(own_folder / CARD_NAME, **changes)
    clip = small_clip(tmp_path / "clip.mp4")
    check_refused(command("run", str(clip), *options(own_folder)), state, f"the nearest: {near}")


@pytest.mark.parametrize("rate", [0, float("inf")])
def test_a_frame_rate_that_is_none(state: Path, own_folder: Path, tmp_path: Path, rate: float) -> None:
    edit(own_folder / CARD_NAME, frames_per_second=rate)
    clip = small_clip(tmp_path / "clip.mp4")
    check_refused(command("run", str(clip), *options(own_folder)), state, "frames_per_second")


@pytest.mark.parametrize("factor", [None, "x", [1]])
def test_a_config_of_another_kind(own_folder: Path, factor: object) -> None:
    """What a class would stumble over later: as an error of ours, whatever the family makes of it."""
    for path in own_folder.glob("*/config.json"):
        told = json.loads(path.read_text())
        edit(path, **{name: factor for name in told if name in {"patch_size", "patch_size_t", "block_out_channels"}})
    with pytest.raises(InputError):
        rules_of(own_folder)


def test_a_part_that_is_missing(state: Path, own_folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(own_folder / "vae")
    clip = small_clip(tmp_path / "clip.mp4")
    check_refused(command("run", str(clip), *options(own_folder)), state, "has no vae")


def test_nothing_heavy_is_loaded_for_that(folder: Path) -> None:
    program = (
        "import sys; from pipeline_lib.registry import check_base; from pipeline_lib.run_config import parse_config;"
        f"check_base(parse_config({{'base': {{'source': {str(folder)!r}}}}}, 'x')); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"torch", "diffusers", "transformers"}.isdisjoint(done.stdout.split())
