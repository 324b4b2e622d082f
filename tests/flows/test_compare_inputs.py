"""What no comparison can use is told in one line before anything starts; no server, no model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli.compare import CompareRequest, _concepts, compare_config
from flows.cli.run import DEMO_GUIDANCE
from flows.compare_plan import _told_apart, plan
from pipeline_lib.run_config import RunConfig
from tests.flows.conftest import command
from tests.steps.tiny import small_clip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--methods", "set_and_sequence,lora-9"], "unknown method 'lora-9'"),
        (["--gizmos", "99"], "no such gizmo"),
        (["--gizmos", "best"], "reporting, tuning, all, confirmation, pairs, pairs-tuning"),
        (["--gizmos", "pair:99"], "no such pair; got 99; expected 0 … 5"),
        (["--seeds", "0,x"], "numbers with commas"),
        (["--preset", "demmo"], "demmo"),
        (["--set", "method.settings.rang=4"], "method.settings.rang"),
        (["--set", "method.name=lora"], "--methods"),
        (["--set", "sed=1"], "sed"),
        (["--concepts", "nowhere"], "nowhere is no folder"),
        (["--at-once", "0"], "at-once"),
        (["--base", "pocket-outlien"], "did you mean 'pocket-outline'"),
        (["--quick", "--gizmos", "3", "--concepts", "."], "leave one of the two out"),
        (["--tally", "nowhere.json"], "nowhere.json holds no answers"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str) -> None:
    monkeypatch.setenv("MANNERISM_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "state" / "prefect"))
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
    config = compare_config(str(path), "", "demo", "0,1,0", ["seed=3"], quick=False)
    assert (config.method.settings, config.samples.seeds, config.seed) == ({"steps": 5}, (0, 1), 3)
    assert compare_config("", "", "demo", "4,1", [], quick=True).samples.seeds == (4,)


def test_what_the_command_does_not_say_the_config_does(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("base: {source: pocket-outline}\nmethod: {preset: paper}\nsamples: {seeds: [5]}\n")
    own = compare_config(str(path), "", "", "", [], quick=False)
    assert (own.base.source, own.method.preset, own.samples.seeds) == ("pocket-outline", "paper", (5,))
    assert own.samples.guidance_scale == 0, "the base's own"
    plain = compare_config("", "", "", "", [], quick=False)
    assert (plain.base.source, plain.method.preset, plain.samples.seeds) == ("pocket", "demo", (0, 1, 2))
    assert plain.samples.guidance_scale == DEMO_GUIDANCE
    others = {"samples.guidance_scale=2": 2, "method.preset=paper": 0, "base.source=pocket-outline": 0}
    for setting, guidance in others.items():
        assert compare_config("", "", "", "", [setting], quick=False).samples.guidance_scale == guidance


def test_the_base_is_every_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = compare_config("", "pocket-outline", "", "", [], quick=True)
    cells = plan(["lora-1", "lora-8"], "0", [], config).cells
    assert [cell.run.config.base.source for cell in cells if cell.run.config] == ["pocket-outline"] * 2
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own: é").mkdir()
    config = compare_config("", "./own: é", "", "", ["base.source=pocket"], quick=True)
    assert config.base.source == "pocket", "--set goes before"


def test_a_refused_comparison_makes_nothing_and_asks_no_prefect(tmp_path: Path) -> None:
    """Prefect reads its settings when it is imported, and makes its home without parents."""
    code = (
        "import sys\nfrom flows.cli.ending import ended\nfrom flows.cli.main import app\n"
        "code = ended(app, ['compare', '--methods', 'lora-9'])\nprint(code, 'prefect' in sys.modules)"
    )
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    missing = tmp_path / "missing"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**own, "MANNERISM_STATE": str(missing)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "2 False"
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not missing.exists()


def test_concepts_of_one_name_are_told_apart() -> None:
    assert _told_apart(["owl", "owl", "owl (2)"], ["wolf"]) == ["owl", "owl (2)", "owl (2) (2)"]
    assert _told_apart(["wolf"], ["wolf"]) == ["wolf (2)"]


def test_pairs_are_cells_beside_gizmos() -> None:
    template = RunConfig.model_validate({"method": {"preset": "demo"}})
    found = plan(["lora-1", "lora-8"], "6,pairs", [], template)
    assert found.concepts == {
        "pindle": "erratic", "tocket-and-wulp": "pair", "pindle-and-grusk": "pair", "yemmo-and-flark": "pair",
        "dovvy-and-snerk": "pair",
    }  # fmt: skip
    assert [cell.concept for cell in found.cells] == [*found.concepts] * 2
    truths = [cell.run.config.evaluation.truth for cell in found.cells[:5] if cell.run.config]
    assert truths == ["gizmo:6", "pair:2", "pair:3", "pair:4", "pair:5"]


def test_the_quick_one_of_pairs_is_the_first() -> None:
    assert _concepts(CompareRequest(quick=True, gizmos="pairs")) == ("pair:2", [])
    assert _concepts(CompareRequest(quick=True)) == ("gizmo:4", [])


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
