"""A comparison's section for readers of the repository: the record's own numbers, and a picture that stands alone."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import comparison
from pipeline_lib.compare.entries import CORE, Entry
from pipeline_lib.compare.folder import CompareRecord, Method
from pipeline_lib.compare.paper import ORDERINGS
from pipeline_lib.compare.scores_file import write_scores
from pipeline_lib.metrics import ScoredSample
from pipeline_lib.metrics.catalog import Measurement, Trace, to_score
from pipeline_lib.metrics.comparison import compared

LABELS = ("set_and_sequence", "lora-8")


@pytest.fixture
def record() -> CompareRecord:
    samples = []
    for number in range(6):
        for row, identity, edit in (("set_and_sequence", 0.6, 0.7), ("lora-8", 0.8, 0.3), ("base", 0.0, 1.0)):
            values = {"identity_accuracy": identity + number / 100, "edit_accuracy": edit, "mse_edit": identity / 10}
            scores = tuple(to_score(name, Measurement(value), Trace()) for name, value in values.items())
            samples.append(ScoredSample(row=row, prompt="p", kind="local", seed=0, concept=f"g{number}", scores=scores))
    return CompareRecord(
        compare_id="compare-1",
        started="2026-01-02T00:00:00+00:00",
        seconds=90.0,
        base="pocket",
        seeds=(0, 1),
        seed=5,
        methods=tuple(Method(entry=entry, preset="demo", settings={}) for entry in CORE if entry.label in LABELS),
        concepts={f"g{number}": "slow" for number in range(6)},
        cells=(),
        scores=compared(samples, LABELS, ORDERINGS, {"slow": [f"g{number}" for number in range(6)]}),
        models={"judge": "0123456789abcdef"},
    )


def test_the_section_has_the_papers_numbers_and_ours(record: CompareRecord) -> None:
    text = "\n".join(comparison.section(record, "mannerism compare", short=False))
    assert "2026-01-02, `mannerism compare`" in text
    assert "sampling seeds 0, 1" in text
    assert "judge `0123456789ab`" in text
    assert "| LoRA-8 = DB-LoRA | 0.0223 · 0.0800 [0.0800, 0.0800] | 0.703 · –" in text
    assert text.count("| two-stage + Reg = Set-and-Sequence | 0.0221 · 0.0600") == 2, "in Table 1 and in Table 2"
    assert text.count("| Base | – · 0.00") == 2, "under both"
    assert "Pareto front of `edit_accuracy` and `identity_accuracy`, by means: lora-8, set_and_sequence, Base." in text
    assert "the product in each sample, up to 6 samples a row**" in text
    assert "equal up to 0.0080" in text, "a tenth of .08"
    untested = text.split("Not tested, for want of a row: ")[1].splitlines()[0]
    assert "Regularisers let two stages keep identity better." in untested
    assert untested.count("the pixel error is that of a LoRA of rank 8.") == 1, "at one rate; at the best it was"
    assert text.count("NewMove") == text.count("Tex-Inv") == 1, "of Table 2"
    assert text.count("| LoRA-8 = DB-LoRA |") == 2, "the same numbers under both names"
    assert "| set_and_sequence | 0.62 [" in text
    assert "| set_and_sequence | 0.44 [0.43, 0.45] | – |  |" in text
    assert "| lora-8 | 0.25 [0.24, 0.25] | −0.19 [−0.20, −0.18] | worse |" in text
    assert re.search(r"\| Base \| 0\.0\d \[.* \| −0\.4\d \[.* \| worse \|", text)
    assert "does not hold" in text, "the paper has the pixel errors equal"
    assert "Rows: `set_and_sequence` two stages with regularisers" in text
    changes = text.split("**More than set_and_sequence, in pairs: edit prompts, 6 concepts**")[1].split("**")[0]
    assert "| lora-8 | +0.20 [+0.20, +0.20] better | −0.40 [−0.40, −0.40] worse |" in changes
    assert "**Slow, edit prompts: 6 concepts**" in text
    assert "**Slow," not in "\n".join(comparison.section(record, "x", short=True))
    for table in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, "no cell breaks its table"


def test_the_section_tells_what_is_beyond_the_clip_that_was_asked_for(record: CompareRecord) -> None:
    samples = [
        ScoredSample(
            row=row, prompt="p", kind="local", seed=0, concept=f"g{number}",
            scores=tuple(to_score(name, Measurement(error), Trace()) for name in ("mse_edit", "mse_subject")),
        )
        for number in range(6)
        for row, error in (("lora-8", 0.01), ("set_and_sequence", 0.05 + 0.01 * (number % 3)), ("ceiling", 0.06))
    ]  # fmt: skip
    found = record.model_copy(update={"scores": compared(samples, LABELS)})
    text = "\n".join(comparison.section(found, "x", short=False))
    table = text.split("**More than the very clip that was asked for: edit prompts, 6 concepts**")[1].split("\n\n")[1]
    assert table.startswith("| method | `mse_edit` |\n"), "the paper's metrics alone"
    assert "| lora-8 | −0.0500 [−0.0500, −0.0500] |" in table, "less is no better here"
    assert re.search(r"\| set_and_sequence \| 0\.0000 \[−.*\] \|", table)


def test_of_several_comparisons_the_time_of_all_is_told(record: CompareRecord) -> None:
    several = record.model_copy(update={"compare_id": "compare-1 + compare-2"})
    assert "`x` (1 min 30 s): " in comparison.section(record, "x", short=True)[0]
    again = record.model_copy(update={"starts": 2})
    assert "(1 min 30 s in the last of 2 calls)" in comparison.section(again, "x", short=True)[0]
    told = comparison.section(several, "x", short=True)[0]
    assert "(1 min 30 s in 2 comparisons, without the cells that they found)" in told


def test_rank_correlations_are_told_with_what_one_method_carries_of_them(record: CompareRecord) -> None:
    """w is far below the rest in both; of the rest the metric has another order in every second concept."""
    seen = {"w": 0.1, "x": 0.5, "y": 0.6, "z": 0.7}
    samples = []
    for number in range(6):
        for row, value in seen.items():
            true = value if number % 2 or row == "w" else 1.2 - value
            values = {"subject_identity": value, "identity_accuracy": true}
            scores = tuple(to_score(name, Measurement(each), Trace()) for name, each in values.items())
            samples.append(ScoredSample(row=row, prompt="p", kind="local", seed=0, concept=f"g{number}", scores=scores))
    methods = tuple(Method(entry=Entry(label=row, method="lora"), preset="demo", settings={}) for row in seen)
    found = record.model_copy(update={"methods": methods, "scores": compared(samples, list(seen))})
    lines = comparison.section(found, "x", short=False)
    (line,) = [line for line in lines if line.startswith("| `subject_identity` | `identity_accuracy`")]
    # 1 and 0.2 by turns; without w 1 and -1. Student's end is above 1, and 1 is the most there is.
    assert line.endswith("| 0.60 [0.14 to 1.00] | 0.00 without w | 24 cells, 6 concepts |")


def test_what_cannot_be_read_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["comparison", str(tmp_path), "--command", "x", "--into", str(tmp_path / "R.md")])
    with pytest.raises(SystemExit, match=r"error: .*compare\.json cannot be read"):
        comparison.main()


def test_the_plot_is_a_picture_of_its_own(
    record: CompareRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, plot, folder = tmp_path / "README.md", tmp_path / "trade-off.svg", tmp_path / "compare-1"
    page.write_text("# R\n\n## One\n\n## Last\n")
    folder.mkdir()
    (folder / "compare.json").write_text(record.model_dump_json())
    write_scores([], folder / "scores.csv")
    wanted = ["comparison", str(folder), "--command", "mannerism compare", "--into", str(page), "--plot", str(plot)]
    monkeypatch.setattr(sys, "argv", [*wanted, "--title", "As measured"])
    comparison.main()
    root = ElementTree.fromstring(plot.read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "--accent" in "".join(root.find("{http://www.w3.org/2000/svg}style").itertext())
    assert len(root.findall("{http://www.w3.org/2000/svg}circle")) == 3
    assert "](trade-off.svg)" in page.read_text()
    titles = [line for line in page.read_text().splitlines() if line.startswith("## ")]
    assert titles == ["## One", "## As measured", "## Last"]
