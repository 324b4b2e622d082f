"""What the demo asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.cli.run import DEMO_GUIDANCE, demo_config
from pipeline_lib.errors import ConfigError
from pipeline_lib.generation.prompts import read_prompts
from pipeline_lib.world.gizmos import REPORTING, gizmo


def test_the_demo_knows_the_truth_about_its_creature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANNERISM_STATE", str(tmp_path / "state"))
    config = demo_config(["samples.seeds=[3]"])
    assert config.evaluation.truth == f"gizmo:{REPORTING[0]}"
    assert (config.method.preset, config.samples.seeds) == ("demo", (3,))
    assert config.samples.guidance_scale == DEMO_GUIDANCE
    assert demo_config(["samples.guidance_scale=2"]).samples.guidance_scale == 2.0
    prompts = read_prompts(Path(config.samples.prompts_file))
    assert [prompt.kind for prompt in prompts] == ["reconstruction", "local", "local", "global", "global", "global"]
    known = {prompt.text for prompt in gizmo(REPORTING[0]).editing_prompts}
    assert {prompt.text for prompt in prompts} <= known, "the judge knows what each asks for"
    files = [Path(config.concept.inputs[0]), Path(config.samples.prompts_file)]
    before = [path.read_bytes() for path in files]
    assert demo_config(["samples.seeds=[3]"]) == config
    assert [path.read_bytes() for path in files] == before


def test_a_wrong_setting_of_the_demo_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANNERISM_STATE", str(tmp_path / "state"))
    with pytest.raises(ConfigError, match=r"evaluation\.truth"):
        demo_config(["evaluation.truht=gizmo:1"])
    assert not (tmp_path / "state").exists()
