"""The page of a batch: what is on it, and that nothing on it is taken for markup."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from PIL import Image

from pipeline_lib.report.batch import BatchLine, BatchPage, Figure

HOSTILE = "<script>alert(1)</script>"


def page(*lines: BatchLine) -> BatchPage:
    return BatchPage(title="zoo", created=datetime(2026, 3, 4, 5, 6), seconds=200, verdict="1 of 2 done", lines=lines)


def test_scores_stand_with_their_intervals_and_what_is_missing_is_a_dash(tmp_path: Path) -> None:
    Image.new("RGB", (8, 4)).save(tmp_path / "strip.png")
    fox = BatchLine(
        concept="fox",
        status="done",
        run_id="fox-1",
        seconds=61,
        strip=tmp_path / "strip.png",
        figures=(Figure("dino_i", 0.51234, 0.4, 0.6), Figure("dynamic_degree_gap", 1.5)),
        links=(("report", "../../runs/fox-1/report.html"),),
    )
    owl = BatchLine(concept="owl", status="done", found=True, figures=(Figure("dino_i", 0.7),))
    text = page(fox, owl).text()
    assert '0.512<span class="interval">0.400 to 0.600</span>' in text
    assert "<dd>–</dd>" in text, "owl has no DD gap"
    assert 'href="../../runs/fox-1/report.html"' in text
    assert "1 min 1 s" in text
    assert "· found" in text
    assert text.count("data:image/png") == 1
    assert text.index("Looks like the subject, DINO") < text.index("Moves as much as the clip"), "the catalog's order"


def test_elsewhere_no_link_is_dead() -> None:
    links = (("report", "../../runs/fox-1/report.html"), ("MLflow", "http://127.0.0.1:5000/#/runs/1"))
    text = page(BatchLine(concept="fox", status="done", links=links)).elsewhere().text()
    assert 'href="http://127.0.0.1:5000/#/runs/1"' in text
    assert "runs/fox-1" not in text
    assert "beside it" not in text


def test_words_of_others_stay_words(tmp_path: Path) -> None:
    line = BatchLine(concept=HOSTILE, status="failed", reason=HOSTILE, notes=(HOSTILE,), links=((HOSTILE, HOSTILE),))
    text = page(line).text()
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 5
    assert "script-src" not in text, "no script may run at all: default-src 'none'"


def test_an_empty_batch_says_so() -> None:
    assert "There was nothing to do." in page().text()
