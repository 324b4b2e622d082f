"""The page of a comparison: what is on it, and that nothing on it is taken for markup."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from pipeline_lib.media.write import write_video
from pipeline_lib.metrics import ScoredSample
from pipeline_lib.metrics.catalog import Measurement, Trace, to_score
from pipeline_lib.metrics.comparison import compared
from pipeline_lib.metrics.orderings import Ordering
from pipeline_lib.report.blind import BlindPair, write_blind_page
from pipeline_lib.report.compare import CellLine, ComparePage, Grid, MethodLine
from pipeline_lib.report.compare_tables import PaperColumn, PaperLine
from tests.steps.tiny import square

HOSTILE = "<script>alert(1)</script>"
ROWS = {"base": (0.1, 0.8), "ours": (0.7, 0.6), "other": (0.5, 0.5), "ceiling": (1.0, 1.0)}
CLAIM = Ordering(
    name="o", statement="Ours is better.", source="Table 9", row="ours", relation="above", against=("other",),
    metrics=("dino_i", "identity_accuracy"),
)  # fmt: skip

CELL = CellLine(
    method="ours", concept="gizmo 0", status="done", run_id="run-1", report="../../runs/run-1/report.html", reason=""
)


def samples(concepts: int, kinds: tuple[str, ...] = ("reconstruction", "local")) -> list[ScoredSample]:
    return [
        ScoredSample(
            row=row, prompt=f"a {kind}", kind=kind, seed=0, concept=f"gizmo {number}",
            scores=tuple(
                to_score(name, Measurement(value), Trace())
                for name, value in {"identity_accuracy": looks, "edit_accuracy": edit, "dino_i": looks}.items()
            ),
        )
        for row, (looks, edit) in ROWS.items()
        for number in range(concepts)
        for kind in kinds
    ]  # fmt: skip


def page(concepts: int = 6, **more: object) -> ComparePage:
    methods = tuple(
        MethodLine(label=label, about="few words", settings="rank=8", seconds=61, done=concepts)
        for label in ("ours", "other")
    )
    slices = {"slow": [f"gizmo {number}" for number in range(concepts)]}
    whole = ComparePage(
        title="Methods", created=datetime(2026, 3, 4, 5, 6), seconds=200, verdict="12 of 12 cells done",
        facts=(("Preset", "demo"),), scores=compared(samples(concepts), ["ours", "other"], [CLAIM], slices),
        methods=methods, paper=(PaperLine("Their other", "other", (0.25,)), PaperLine("Absent", "absent", (0.1,))),
        columns=(PaperColumn("ID", 3, ("clip_i", "dino_i")),), raters=(("other", (87, 88, 98, 100)),),
        cells=(CELL,),
        blind="blind.html", every_score="scores.csv",
    )  # fmt: skip
    return replace(whole, **more)


def test_all_parts_of_a_comparison_are_on_the_page() -> None:
    text = page().text()
    assert '<td class="best"><span class="mean">0.70</span><span class="interval">0.70 to 0.70</span></td>' in text
    assert "Pareto front, base included: ours, base; between its points nothing was measured." in text
    assert '<svg class="chart"' in text
    assert 'aria-label="Base: edit 0.80, identity 0.10; ours: edit 0.60, identity 0.70; other:' in text
    assert '<span class="paper">0.250</span> · <span class="ours">0.500</span>' in text, (
        "the first metric that there is"
    )
    assert '<span class="paper">0.100</span> · <span class="ours">–</span>' in text
    assert '<span class="mean">100 %</span> <span class="paper">· raters 87 %</span>' in text
    assert '<span class="interval">6 : 0, 0 even</span>' in text, "by identity"
    assert '<span class="interval">6 : 0, 0 even, without motion</span>' in text, "overall, where nobody read it"
    assert text.count('<span class="chip better">holds</span>') == 2
    assert text.count("Ours is better.") == 1, "a statement stands once"
    assert "other <strong>+0.20</strong>" in text
    assert "<h3>Slow <small>6 concepts</small></h3>" in text
    assert 'href="blind.html"' in text
    assert 'href="scores.csv"' in text
    for label in ("Base", "ours", "other"):
        assert f">{label}</text>" in text, "at its dot"
    assert "1 min 1 s" in text
    assert "Paired differences to ours" in text
    assert '<td class="worse"><span class="mean">−0.20</span>' in text


def test_rows_are_held_against_the_clip_that_was_asked_for_where_that_is_known() -> None:
    part = page().text().partition("Against the very clip that was asked for")[2].partition("</details>")[0]
    assert '<td class="apart"><span class="mean">−0.300</span>' in part, "decided, and neither better nor worse"
    assert "identity_accuracy" not in part, "the truth is the ceiling's by itself"
    assert "↑" not in part, "neither way is better"
    reached = (to_score("dino_i", Measurement(1.0), Trace()),)
    even = [s.model_copy(update={"scores": reached}) if s.row == "ours" else s for s in samples(6)]
    part = page(scores=compared(even, ["ours", "other"])).text().partition("Against the very clip")[2]
    assert '<td><span class="mean">0.000</span>' in part.partition("</details>")[0]
    known = [s for s in samples(6) if s.row != "ceiling"]
    assert "Against the very clip" not in page(scores=compared(known, ["ours", "other"])).text()


def test_kinds_of_edits_have_tables_of_their_own_by_the_truth() -> None:
    text = page(scores=compared(samples(6, ("local", "global")), ["ours", "other"])).text()
    part = text.partition('<section id="kinds">')[2].partition("</section>")[0]
    assert part.count("<h3>") == 2
    assert "<h3>Edits of the subject itself <small>6 concepts</small></h3>" in part
    assert "identity_accuracy" in part
    assert "dino_i" not in part, "where the truth is known, it alone"
    assert text.count("Edits of what is around it") == 3, "among the differences and against what was asked for, too"
    assert 'id="kinds"' not in page().text(), "one kind alone"


def test_all_at_once_has_a_table_with_motion_where_it_was_measured() -> None:
    text = page().text()
    assert text.count("The subject, edited as asked <small>up to 6 samples a row</small></h3>") == 1
    assert "moving as it does <small>" not in text
    moving = [
        sample.model_copy(update={"scores": (*sample.scores, to_score("motion_fidelity", Measurement(0.4), Trace()))})
        for sample in samples(6)
    ]
    part = (
        page(scores=compared(moving, ["ours", "other"]))
        .text()
        .partition("moving as it does <small>up to 6 samples a row</small></h3>")[2]
    )
    rows = part.partition("</table>")[0]
    assert '<span class="mean">0.17</span>' in rows, "0.7 · 0.6 · 0.4"
    assert '<td class="worse"><span class="mean">−0.07</span>' in rows, "0.5 · 0.5 · 0.4 is less"


def test_one_concept_gives_numbers_without_intervals_and_decides_nothing() -> None:
    text = page(1).text()
    assert "1 concept: too few for an interval" in text
    assert text.count("undecided</span>") == 2
    assert '<span class="chip better">' not in text
    assert " to 0." not in text.partition('id="runs"')[0].partition('id="scores"')[2]


def test_of_a_change_on_few_concepts_the_page_says_in_how_many_it_is_above_zero() -> None:
    text = page(4).text()
    told = text.partition("Paired differences to ours")[2].partition("</details>")[0]
    assert '<span class="mean">−0.20</span><span class="interval">0 of 4 above 0</span>' in told
    assert "of 6 above 0" not in page(6).text(), "those have an interval"


def test_elsewhere_no_link_is_dead() -> None:
    text = page().elsewhere().text()
    assert "../../runs" not in text
    assert "blind.html" not in text
    assert "scores.csv" not in text
    assert "run-1" in text


def test_nothing_scored_is_a_page_too() -> None:
    text = page(scores=compared([], ["ours"])).text()
    assert "Nothing was scored." in text


def test_words_of_others_stay_words() -> None:
    grid = Grid(concept=HOSTILE, about=HOSTILE, reference=b"", prompts=(HOSTILE,), rows=((HOSTILE, (b"webp",)),))
    cell = CellLine(method=HOSTILE, concept=HOSTILE, status="failed", run_id=HOSTILE, report=HOSTILE, reason=HOSTILE)
    text = page(title=HOSTILE, verdict=HOSTILE, grids=(grid,), cells=(cell,), notes=(HOSTILE,)).text()
    assert "<script" not in text
    assert "script-src" not in text, "no script may run at all: default-src 'none'"
    assert text.count("data:image/webp") == 1


def test_the_blind_page_holds_each_video_once_and_no_markup_of_others(tmp_path: Path) -> None:
    videos = {f"video-{number}": write_video(square(), tmp_path / f"{number}.mp4", 8.0) for number in range(3)}
    pairs = [
        BlindPair("one", HOSTILE, "video-0", "video-1", "video-2"),
        BlindPair("two", "a dog", "", "video-2", "video-1"),
    ]
    text = write_blind_page(tmp_path / "blind.html", "compare-1", pairs, videos).read_text()
    assert text.count("data:video/mp4") == 3
    assert text.count("<script") == 2, "the pairs as data, and our own"
    assert "\\u003cscript>alert" in text
