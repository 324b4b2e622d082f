"""A whole run by the command line, server and worker child included, on a tiny folder of every family."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline_lib.models.tiny import tiny_wan_a14b, tiny_wan_ti2v
from pipeline_lib.models.tiny_cogvideox import tiny_cogvideox
from pipeline_lib.models.tiny_hunyuan import tiny_hunyuan
from pipeline_lib.models.tiny_ltx import tiny_ltx
from pipeline_lib.steps.state import StateFolder
from tests.flows.conftest import command, state
from tests.steps.tiny import options, small_clip

__all__ = ["state"]
pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
FOLDERS: dict[str, Callable[[Path], Path]] = {
    "wan 2.2 5B": tiny_wan_ti2v,
    "wan 2.2 A14B": tiny_wan_a14b,
    "ltx": tiny_ltx,
    "cogvideox": tiny_cogvideox,
    "hunyuan": tiny_hunyuan,
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_run_leaves_a_lora_that_can_be_exported(name: str, state: StateFolder, tmp_path: Path) -> None:
    base = FOLDERS[name](tmp_path / "base")
    clip = small_clip(tmp_path / f"{name.split(maxsplit=1)[0]}.mp4")
    code, output, errors = command(["run", str(clip), *options(base), "--json"])
    assert code == 0, errors
    result = json.loads(output.splitlines()[-1])
    assert {"base", "personalised"} <= set(result["scores"])
    assert Path(result["report"]).is_file() and Path(result["lora"]).is_file()
    for form, file in (("comfyui", "x.safetensors"), ("peft", "peft")):
        code, output, errors = command(
            ["export", result["run_id"], "--format", form, "--out", str(tmp_path / file), "--json"]
        )
        assert code == 0, errors
        assert Path(json.loads(output)["path"]).exists()
