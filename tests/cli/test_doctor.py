"""`doctor CONFIG`: what it tells of a run, to people and to programs."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline_lib.run_config import config_text
from tests.cli.test_bad_input import command, state
from tests.steps.tiny import small_clip, tiny_config

__all__ = ["state"]


def test_every_phase_is_told_in_words_and_in_bytes(state: Path, tiny_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        config_text(tiny_config(tiny_folder, [small_clip(tmp_path / "clip.mp4")], "training.micro_batch=2"))
    )
    result = command("doctor", str(path), "--json")
    assert result.code == 0, result.errors
    facts = json.loads(result.output)["config"]
    phases = ["encode", "train-identity", "train-motion", "samples"]
    assert [phase["name"] for phase in facts["bytes"]["phases"]] == phases
    assert all(f"{phase}, device GB" in facts for phase in phases)
    most = max(sum(phase["device"].values()) for phase in facts["bytes"]["phases"])
    assert facts["bytes"]["need"]["device"] == most < facts["bytes"]["free"]["device"]
    assert set(facts["work"]) == {"train-identity", "train-motion", "pass"}
    assert {"speed", "train-motion, s a step, about", "train-motion, minutes, about", "samples, minutes, about"} <= set(
        facts
    )
    (change,) = facts["bytes"]["advice"]
    assert change["settings"] == {"micro_batch": 0}, "there is room: smaller batches are not needed"
    assert "could go for speed, 1" in facts


def test_settings_that_save_nothing_are_refused_in_one_line(state: Path, tiny_folder: Path, tmp_path: Path) -> None:
    path, clip = tmp_path / "run.yaml", small_clip(tmp_path / "clip.mp4")
    path.write_text(
        f"concept: {{inputs: [{clip}], subject: dog}}\nbase: {{source: {tiny_folder}}}\ntraining: {{storage: fp8}}\n"
    )
    result = command("doctor", str(path))
    assert result.code == 2
    assert "gradient_checkpointing" in result.errors
    assert "Traceback" not in result.errors
