"""The gizmo benchmark, end to end on a tiny base at the world's size; its tables and its section of the results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.gizmo_tables import figures
from benchmarks.gizmos import main
from benchmarks.results import put_section
from pipeline_lib.metrics import ScoredSample
from pipeline_lib.metrics.catalog import Measurement, Trace, to_score
from pipeline_lib.registry import TRUTHS
from pipeline_lib.world.gizmos import gizmo
from tests.steps.tiny import tiny_world_base

QUICK = ("identity_steps=1", "motion_steps=1", "prior_weight=0", "token_variants=2", "batch=1", "rank=1")


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    main([*arguments, "--json"])
    return json.loads(capsys.readouterr().out)


@pytest.mark.skipif(not all(path.is_file() for path in TRUTHS["gizmo"].weights), reason="the judge is not trained yet")
@pytest.mark.system
def test_it_measures_against_the_truth_and_the_second_call_only_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [part for text in QUICK for part in ("--set", f"method.settings.{text}")]
    base = tiny_world_base(tmp_path / "base")
    call = ["--gizmos", "1", "--preset", "portable", "--base", str(base), "--state", str(tmp_path / "state"), *settings]
    first = told(capsys, *call, "--sheet", str(tmp_path / "sheet"), "--set", "evaluation.encoder=none")
    assert first["gizmos"] == [gizmo(1).name]
    assert len(first["judge_digest"]) == 64
    assert str(tmp_path) not in first["command"]
    rows = {(line["prompts"], line["metric"]): line for line in first["table"]}
    for line in rows.values():
        for row in ("base", "personalised", "ceiling", "chance"):
            assert line["metric"] == "motion_fidelity" or 0 <= line[row]["mean"] <= 1, (line["metric"], row)
            assert line[row]["low"] is None, "one gizmo has no interval"
    assert rows["reconstruction", "identity_accuracy"]["samples"] == {
        "base": 1, "personalised": 1, "ceiling": 1, "chance": 11
    }  # fmt: skip
    assert rows["edits", "edit_accuracy"]["samples"]["personalised"] == 10
    assert rows["edits", "identity_accuracy"]["samples"]["personalised"] == 9, "not where another colour is asked for"
    assert rows["edits", "edit_accuracy"]["samples"]["chance"] == 110
    assert Image.open(tmp_path / "sheet" / "gizmos.png").height > 5 * 64, "the clip and four samples"
    again = told(capsys, *call, "--set", "evaluation.encoder=none")
    assert again["each"][gizmo(1).name]["trained"] == 0
    assert again["table"] == first["table"]


def sample(concept: str, row: str, kind: str, prompt: str, **values: float) -> ScoredSample:
    scores = tuple(to_score(name, Measurement(value), Trace()) for name, value in values.items())
    return ScoredSample(row=row, prompt=prompt, kind=kind, seed=0, scores=scores, concept=concept)


def test_intervals_are_over_gizmos() -> None:
    shares = [0.2, 0.4, 0.6, 0.8, 1.0]
    samples = [
        sample(f"gizmo {number}", "personalised", "local", f"prompt {copy}", edit_accuracy=share)
        for number, share in enumerate(shares)
        for copy in range(10)
    ]
    line = next(line for line in figures(samples) if line["metric"] == "edit_accuracy")
    assert line["personalised"]["mean"] == pytest.approx(0.6)
    assert 0.2 < line["personalised"]["low"] < 0.45
    assert 0.75 < line["personalised"]["high"] < 1.0
    assert "base" not in line
    assert all("personalised" not in line for line in figures(samples) if line["prompts"] == "reconstruction")


def test_a_section_is_added_before_the_last_and_then_replaced(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    path.write_text("# Results\n\nWords.\n\n## One\n\n1\n\n## Last\n\nend\n")
    put_section(path, "Gizmos", ["first"])
    assert path.read_text() == "# Results\n\nWords.\n\n## One\n\n1\n\n## Gizmos\n\nfirst\n\n## Last\n\nend\n"
    put_section(path, "Gizmos", ["second", "line"])
    put_section(path, "Last", ["fin"])
    assert path.read_text() == ("# Results\n\nWords.\n\n## One\n\n1\n\n## Gizmos\n\nsecond\nline\n\n## Last\n\nfin\n")
