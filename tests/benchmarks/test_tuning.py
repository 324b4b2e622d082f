"""The table of tuned rates: equal budgets only, the best by the harmonic mean of the truths."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import tuning
from pipeline_lib.compare.cells import Cell
from pipeline_lib.compare.entries import Entry
from pipeline_lib.compare.folder import CompareRecord, Method
from pipeline_lib.metrics import ScoredSample
from pipeline_lib.metrics.catalog import Measurement, Trace, to_score
from pipeline_lib.metrics.comparison import compared

ADAPTER, WORD = "lora-8", "textual_inversion"


def record(
    rate: float, identity: float, concepts: tuple[str, ...] = ("Bim", "Quib"), status: str = "done"
) -> CompareRecord:
    """Two methods at one rate; the word learns at ten times the adapter's, and keeps the opposite identity."""
    samples = []
    for concept in concepts:
        for label, value in ((ADAPTER, identity), (WORD, 1 - identity)):
            values = {"identity_accuracy": value, "motion_fidelity": 0.5, "edit_accuracy": 0.4}
            scores = tuple(to_score(name, Measurement(number), Trace()) for name, number in values.items())
            samples.append(ScoredSample(row=label, prompt="p", kind="local", seed=0, concept=concept, scores=scores))
    own = {ADAPTER: {"optimizer": {"learning_rate": rate}}, WORD: {"word_optimizer": {"learning_rate": 10 * rate}}}
    return CompareRecord(
        compare_id=f"compare-{rate:g}",
        started="2026-01-02T00:00:00+00:00",
        seconds=1.0,
        base="pocket",
        seeds=(0,),
        seed=0,
        methods=tuple(
            Method(entry=Entry(label=label, method="lora"), preset="demo", settings=settings)
            for label, settings in own.items()
        ),
        concepts=dict.fromkeys(concepts, "slow"),
        cells=tuple(
            Cell(entry=label, concept=concept, status=status, trained_seconds=30.0)
            for label in own
            for concept in concepts
        ),
        scores=compared(samples, list(own)),
    )


def test_the_best_try_of_each_method_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "RESULTS.md"
    page.write_text("# R\n\n## Last\n")
    files = []
    for rate, identity in ((9e-3, 0.2), (1e-3, 0.5), (3e-3, 0.6)):
        files.append(tmp_path / f"{rate}.json")
        files[-1].write_text(record(rate, identity).model_dump_json())
    monkeypatch.setattr(sys, "argv", ["tuning", *map(str, files), "--command", "compare", "--into", str(page)])
    tuning.main()
    lines = page.read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")][1:]
    assert [row[1] for row in rows] == ["0.001", "0.003", "0.009", "0.01", "0.03", "0.09"]
    assert [(row[1], row[-1]) for row in rows if row[-1]] == [("0.003", "yes"), ("0.09", "yes, at the edge")]
    assert rows[1][2:7] == ["0.60", "0.50", "0.40", "0.500", "0.486"]
    assert "3 rates for each method, on Bim, Quib" in page.read_text()


def test_a_method_may_have_a_further_try() -> None:
    lower = record(3e-4, 0.55)
    alone = lower.model_copy(update={"methods": lower.methods[:1]})
    found = tuning.tries([record(1e-3, 0.5), alone, record(3e-3, 0.4)])
    assert [one.rate for one in found[ADAPTER]] == [3e-4, 1e-3, 3e-3]
    assert [one.rate for one in found[WORD]] == [1e-2, 3e-2]
    assert tuning.section(found, alone, "compare")[0].count("2 or 3 rates for each method") == 1


def rated(rate: float, identity: float, edits: float, motion: float = 1.0) -> tuning.Try:
    truths = {"identity_accuracy": identity, "motion_fidelity": motion, "edit_accuracy": edits}
    return tuning.Try(rate, truths, 1.0)


def test_a_copy_of_the_clip_under_every_prompt_is_not_kept() -> None:
    copy, fair = rated(9e-3, 1.0, 0.0), rated(1e-3, 0.5, 0.4, motion=0.6)
    assert copy.mean > fair.mean
    assert tuning.best([copy, fair]) is fair
    lost = [rated(1e-3, 0.0, 0.8, motion=-0.1), rated(2e-3, 0.0, 0.9, motion=-0.1)]
    assert tuning.best(lost).rate == 2e-3, "where no goal is reached the plain mean decides"


def test_equal_goals_keep_the_lower_rate() -> None:
    (found,) = [
        members for label, members in tuning.tries([record(2e-3, 0.5), record(1e-3, 0.5)]).items() if label == ADAPTER
    ]
    assert tuning.best(found).rate == 1e-3


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (record(3e-3, 0.5, concepts=("Bim",)), "no equal budget"),
        (record(3e-3, 0.5, status="failed"), "compare-0.003: 2 methods on 2 concepts"),
        (record(1e-3, 0.6), f"{ADAPTER} has one of its rates twice"),
        (record(3e-3, 0.5).model_copy(update={"base": "pocket-outline"}), "no equal budget"),
    ],
)
def test_unequal_budgets_are_refused(
    other: CompareRecord, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, one in zip(files, (record(1e-3, 0.5), other), strict=True):
        path.write_text(one.model_dump_json())
    monkeypatch.setattr(sys, "argv", ["tuning", *map(str, files), "--command", "compare", "--json"])
    with pytest.raises(SystemExit, match=told):
        tuning.main()


def test_json_tells_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tmp_path / "one.json"
    told.write_text(record(1e-3, 0.5).model_dump_json())
    monkeypatch.setattr(sys, "argv", ["tuning", str(told), "--command", "compare", "--json"])
    tuning.main()
    assert json.loads(capsys.readouterr().out)["kept"] == {ADAPTER: 1e-3, WORD: 1e-2}
