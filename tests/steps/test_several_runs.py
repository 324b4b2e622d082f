"""Where several runs are written down together, as a batch does it: names of files, starts, the sentence."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline_lib.steps.batch import BatchFolder, BatchRow
from pipeline_lib.steps.several_runs import how_it_went, report_address
from pipeline_lib.steps.state import StateFolder


def test_a_batch_that_is_started_again_is_written_to_the_same_files(tmp_path: Path) -> None:
    state = StateFolder.open(tmp_path)
    row = BatchRow(concept="owl", status="failed", reason="torn")
    for start in (1, 2):
        folder = BatchFolder(state, "zoo", ["owl-1", "fox-1"])
        record = folder.write([row], "2026-01-01T00:00:00+00:00", 1.0)
        assert record.starts == start
    written = sorted(str(path.relative_to(state.batches)) for path in state.batches.rglob("*") if path.is_file())
    assert written == [f"{record.batch_id}/{name}" for name in ("batch.html", "batch.json", "elsewhere/batch.html")]
    assert record.batch_id.startswith("zoo-")
    assert BatchFolder(state, "zoo", ["fox-1", "owl-1"]).record() == record
    assert BatchFolder(state, "zoo", ["fox-1"]).record() is None
    keys = list(json.loads(folder.record_file.read_bytes()))
    assert keys == ["schema_version", "batch_id", "name", "started", "seconds", "starts", "rows"]
    folder.record_file.write_text("{}")
    assert folder.record() is None, "nothing readable"


def test_how_it_went_is_one_sentence() -> None:
    assert how_it_went("concepts", 3, 0, []) == "3 of 3 concepts done"
    assert how_it_went("concepts", 3, 1, ["owl"]) == "2 of 3 concepts done, 1 of them found; owl failed"
    assert how_it_went("cells", 4, 0, list("abcd"), most=2) == "0 of 4 cells done; a, b and 2 more failed"


def test_a_runs_report_is_beside_the_page() -> None:
    assert report_address("fox-1", "/far/away/runs/fox-1/report.html") == "../../runs/fox-1/report.html"
