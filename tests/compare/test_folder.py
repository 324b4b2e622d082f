"""A comparison's folder: what is written, what it tells of a base with LoRAs; nothing is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline_lib.compare.cells import Cell
from pipeline_lib.compare.entries import CORE
from pipeline_lib.compare.folder import Compared, CompareFolder, CompareRecord
from pipeline_lib.compare.notes import other_look
from pipeline_lib.metrics import ScoredSample
from pipeline_lib.metrics.catalog import Measurement, Trace, to_score
from pipeline_lib.metrics.comparison import ComparedScores, compared
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.state import StateFolder

DEMO = RunConfig.model_validate({"method": {"preset": "demo"}})


def scores(metric: str) -> ComparedScores:
    score = to_score(metric, Measurement(0.5), Trace())
    return compared([ScoredSample(row="x", prompt="a", kind="local", seed=0, concept="g", scores=(score,))], ["x"])


def test_a_comparison_that_is_started_again_is_written_to_the_same_files(tmp_path: Path) -> None:
    cells = [Cell(entry="lora-1", concept=f"gizmo {number}", status="failed", reason="torn") for number in range(7)]
    what = Compared(entries=CORE[:1], concepts={"gizmo 0": "slow"}, template=DEMO)
    for start in (1, 2):
        folder = CompareFolder(StateFolder.open(tmp_path), ["b", "a"])
        record = folder.write(cells, what, "2026-01-01T00:00:00+00:00", 3.0)
        assert record.starts == start
    written = sorted(str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file())
    assert written == ["compare.html", "compare.json", "elsewhere/compare.html", "scores.csv"], (
        "no pairs, so no page of them"
    )
    assert CompareFolder(StateFolder.open(tmp_path), ["a", "b"]).record() == record
    assert folder.path == StateFolder.open(tmp_path).comparisons / record.compare_id
    assert CompareRecord.model_validate_json((folder.path / "compare.json").read_bytes()) == record
    names = ", ".join(f"lora-1 on gizmo {number}" for number in range(5))
    assert record.told == f"1 method on 1 concept: 0 of 7 cells done; {names} and 2 more failed"
    assert record.told in folder.page.read_text()


def test_the_page_tells_with_how_many_threads_cells_were_trained(tmp_path: Path) -> None:
    def told(*counts: tuple[int, ...]) -> tuple[tuple[int, ...], bool]:
        cells = [
            Cell(entry="lora-1", concept=str(number), status="done", threads=each) for number, each in enumerate(counts)
        ]
        cells.append(Cell(entry="lora-1", concept="torn", status="failed"))
        folder = CompareFolder(StateFolder.open(tmp_path), ["a"])
        what = Compared(entries=CORE[:1], concepts={}, template=DEMO)
        record = folder.write(cells, what, "2026-01-01T00:00:00+00:00", 3.0)
        listed = ", ".join(map(str, record.threads))
        page = folder.page.read_text()
        return record.threads, bool(re.search(f"Threads of a training<.{{,40}}>{listed}<", page, re.DOTALL))

    assert told((2,), (1, 2)) == ((1, 2), True)
    assert told((2,), ()) == ((), False), "of cells of former times it is not known"


@pytest.mark.parametrize(
    ("base", "metric", "told"),
    [
        ({"source": "pocket-outline"}, "identity_accuracy", "outline/lora.safetensors"),
        ({"source": "pocket", "loras": ["styles/ink.safetensors:0.8"]}, "edit_accuracy", "styles/ink.safetensors"),
        ({"source": "pocket"}, "identity_accuracy", ""),
        ({"source": "pocket-outline"}, "dino_i", ""),
    ],
)
def test_the_truth_on_a_base_with_loras_is_said_to_measure_their_look_too(base: dict, metric: str, told: str) -> None:
    notes = other_look(RunConfig.model_validate({"base": base}), scores(metric))
    assert len(notes) == bool(told)
    assert all(told in note for note in notes)
