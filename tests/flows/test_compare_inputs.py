"""What no comparison can use is told in one line before anything starts; no server, no model."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.cli.compare import compare_config
from flows.compare import _told_apart, plan
from pipeline_lib.run_config import RunConfig
from tests.flows.conftest import command
from tests.steps.tiny import small_clip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--methods", "set_and_sequence,lora-9"], "unknown method 'lora-9'"),
        (["--gizmos", "99"], "no such gizmo"),
        (["--gizmos", "best"], "reporting, tuning, all"),
        (["--seeds", "0,x"], "numbers with commas"),
        (["--preset", "demmo"], "demmo"),
        (["--set", "method.settings.rang=4"], "method.settings.rang"),
        (["--set", "method.name=lora"], "--methods"),
        (["--set", "sed=1"], "sed"),
        (["--concepts", "nowhere"], "nowhere is no folder"),
        (["--at-once", "0"], "at-once"),
        (["--tally", "nowhere.json"], "nowhere.json holds no answers"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str) -> None:
    monkeypatch.setenv("MANNERISM_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    code, _, errors = command(["compare", *arguments])
    assert code == 2
    assert said in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "state").exists(), "nothing has begun"


def test_a_concept_says_what_it_is_and_the_comparison_how_it_is_learned(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        small_clip(tmp_path / name / "clip.mp4")
    (tmp_path / "a" / "concept.yaml").write_text(
        "name: owl\nsubject: snowy owl\npreset: paper\nsample_seeds: [7]\nseed: 9\n"
    )
    (tmp_path / "b" / "concept.yaml").write_text("name: owl\nsubject: barn owl\n")
    template = RunConfig.model_validate({"method": {"preset": "demo"}, "samples": {"seeds": [0, 1]}})
    planned = plan(["lora-1"], "", [str(tmp_path / "a"), str(tmp_path / "b")], template)
    assert planned.concepts == {"owl": "", "owl (2)": ""}, "two of one name are told apart"
    for cell in planned.cells:
        config = cell.run.config
        assert config is not None
        assert (config.method.preset, config.samples.seeds, config.seed) == ("demo", (0, 1), 0)
        assert not config.tracking.register_model
    assert [cell.run.config.concept.subject for cell in planned.cells if cell.run.config] == ["snowy owl", "barn owl"]


def test_a_config_may_hold_settings_of_a_baseline_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("method:\n  settings: {steps: 5}\n")
    config = compare_config(str(path), "demo", "0,1,0", ["seed=3"], quick=False)
    assert (config.method.settings, config.samples.seeds, config.seed) == ({"steps": 5}, (0, 1), 3)
    assert compare_config("", "demo", "4,1", [], quick=True).samples.seeds == (4,)


def test_what_the_command_does_not_say_the_config_does(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("method: {preset: paper}\nsamples: {seeds: [5]}\n")
    own = compare_config(str(path), "", "", [], quick=False)
    assert (own.method.preset, own.samples.seeds) == ("paper", (5,))
    plain = compare_config("", "", "", [], quick=False)
    assert (plain.method.preset, plain.samples.seeds) == ("demo", (0, 1, 2))


def test_concepts_of_one_name_are_told_apart() -> None:
    assert _told_apart(["owl", "owl", "owl (2)"], ["wolf"]) == ["owl", "owl (2)", "owl (2) (2)"]
    assert _told_apart(["wolf"], ["wolf"]) == ["wolf (2)"]


def test_gizmos_are_the_default_and_tuning_ones_for_ablations() -> None:
    template = RunConfig.model_validate({"method": {"preset": "demo"}})
    core = plan(["lora-1", "lora-8"], "", [], template)
    assert (len(core.cells), len(core.concepts)) == (16, 8)
    assert core.concepts["pindle"] == "erratic"
    assert [cell.concept for cell in core.cells[:8]] == list(core.concepts), "by entry, then by concept"
    ablations = plan([], "", [], template, ablations=True)
    assert set(ablations.concepts) == {"bim", "zoffle", "quib", "marn"}
    assert len(ablations.cells) == 4 * len(ablations.entries)
    assert any("no-prior" in note for note in ablations.notes)
