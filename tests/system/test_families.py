"""A whole run by the command line, server and worker child included, on a tiny folder of every family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline_lib.models.folder import PipelineFolder
from pipeline_lib.models.lora_export import lora_files
from pipeline_lib.models.lora_import import import_lora
from pipeline_lib.models.lora_use import bare_denoisers
from pipeline_lib.models.triple import LoraTriple
from pipeline_lib.steps.state import StateFolder
from tests.families.test_matrix import FOLDERS
from tests.flows.conftest import command
from tests.steps.tiny import options, small_clip

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_run_leaves_a_lora_that_can_be_exported(name: str, state: StateFolder, tmp_path: Path) -> None:
    base = FOLDERS[name][1](tmp_path / "base")
    clip = small_clip(tmp_path / f"{name.replace(' ', '-').replace('.', '-')}.mp4")
    code, output, errors = command(["run", str(clip), *options(base), "--json"])
    assert code == 0, errors
    result = json.loads(output.splitlines()[-1])
    assert {"base", "personalised"} <= set(result["scores"])
    assert Path(result["report"]).is_file() and Path(result["lora"]).is_file()
    assert {"train-identity", "train-motion"} <= set(result["seconds"])
    triple = LoraTriple.load(Path(result["concept"]) / "triple.safetensors")
    for form, file in (("diffusers", "a.safetensors"), ("comfyui", "b.safetensors"), ("peft", "c")):
        asked = ["--format", form, "--identity", "1.0", "--motion", "0.7", "--out", str(tmp_path / file)]
        code, output, errors = command(["export", result["run_id"], *asked, "--json"])
        assert code == 0, errors
        assert Path(json.loads(output)["path"]).exists()
        for prefix, denoiser in bare_denoisers(PipelineFolder(base)).items():
            made = lora_files(triple, tmp_path / file)[prefix]
            read = import_lora(
                made / "adapter_model.safetensors" if form == "peft" else made, FOLDERS[name][0], denoiser
            )
            assert set(read.layers) == set(triple.by_expert()[prefix].layers)
