"""Comparisons side by side: the table of every score, and methods of other folders as one comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline_lib.compare.cells import Cell
from pipeline_lib.compare.entries import CORE
from pipeline_lib.compare.folder import CompareRecord, Method
from pipeline_lib.compare.joined import joined, keep
from pipeline_lib.compare.paper import ORDERINGS
from pipeline_lib.compare.scores_file import read_scores, write_scores
from pipeline_lib.errors import InputError
from pipeline_lib.metrics import ScoredSample
from pipeline_lib.metrics.catalog import Measurement, Trace, to_score
from pipeline_lib.metrics.comparison import as_judged, compared

CONCEPTS = [f"g{number}" for number in range(6)]
METRICS = ("identity_accuracy", "motion_fidelity", "edit_accuracy", "dino_i", "mse_edit")
NASTY = 'a {subject}, in "quotes",\r\nin two lines'
ANOTHER_LOOK = "a red {subject}"
HERE = "/home/someone/mannerism_state/runs/g0/report.html"
BASE_ROW, CEILING_ROW = "base", "ceiling"


def a_sample(row: str, concept: str, prompt: str, start: float, seed: int = 0) -> ScoredSample:
    values = [start + number / 7 for number in range(len(METRICS))]
    measured = [Measurement(value) if value <= 1 else Measurement(None, "too much") for value in values]
    if prompt == ANOTHER_LOOK:
        measured[0] = Measurement(None, "the prompt asks for another look")
    scores = tuple(to_score(name, value, Trace(encoder="e")) for name, value in zip(METRICS, measured, strict=True))
    return ScoredSample(row=row, prompt=prompt, kind="local", seed=seed, concept=concept, scores=scores, negative="x")


def samples_of(labels: tuple[str, ...]) -> list[ScoredSample]:
    """Of methods, as one comparison has them: base and ceiling with each."""
    numbers = {label: number for number, label in enumerate((*(entry.label for entry in CORE), BASE_ROW, CEILING_ROW))}
    return [
        a_sample(row, concept, prompt, (numbers[row] + 3 * place + len(prompt) % 5) / 41, seed)
        for place, concept in enumerate(CONCEPTS)
        for row in (*labels, BASE_ROW, CEILING_ROW)
        for prompt in ("p", NASTY, ANOTHER_LOOK)
        for seed in (0, 1)
    ]


def a_record(labels: tuple[str, ...], **changed: object) -> CompareRecord:
    values = {
        "compare_id": f"compare-{labels[0]}",
        "started": "2026-01-02T00:00:00+00:00",
        "seconds": 90.0,
        "base": "pocket",
        "seeds": (0, 1),
        "seed": 5,
        "methods": [Method(entry=entry, preset="demo", settings={}) for entry in CORE if entry.label in labels],
        "concepts": dict.fromkeys(CONCEPTS, "slow"),
        "cells": [Cell(entry=label, concept=name, status="done", report=HERE) for label in labels for name in CONCEPTS],
        "scores": compared(samples_of(labels), labels, ORDERINGS, {"slow": CONCEPTS}),
        "models": {"judge": "0123"},
        "notes": ["a note"],
    }
    return CompareRecord.model_validate({**values, **changed})


def a_folder(path: Path, labels: tuple[str, ...], **changed: object) -> Path:
    path.mkdir()
    (path / "compare.json").write_text(a_record(labels, **changed).model_dump_json())
    write_scores(samples_of(labels), path / "scores.csv")
    return path


def test_scores_come_back_to_six_digits_whatever_the_prompts_say(tmp_path: Path) -> None:
    samples = samples_of(("lora-8",))
    write_scores(samples, tmp_path / "scores.csv")
    back = read_scores(tmp_path / "scores.csv")
    assert [read.model_copy(update={"scores": ()}) for read in back] == [
        written.model_copy(update={"scores": ()}) for written in samples
    ]
    for read, written in zip(back, samples, strict=True):
        counted = as_judged(written).scores
        values = {score.metric: score.value for score in counted if score.value is not None}
        assert {score.metric: score.value for score in read.scores} == pytest.approx(values, rel=1e-5)
    write_scores(back, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "scores.csv").read_bytes()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "nothing"),
        ("a,b\n1,2\n", "a, b"),
        ("concept,row,kind,prompt,negative,seed,beauty\n", "beauty"),
        ("concept,row,kind,prompt,negative,seed,dino_i\ng,r,local,p,,0,0.5\ng,r,local,p,,0,much\n", "line 3"),
        ("concept,row,kind,prompt,negative,seed,dino_i\ng,r,local,p,,0,nan\n", "dino_i is nan"),
        ("concept,row,kind,prompt,negative,seed,dino_i\ng,r,local\n", "line 2"),
    ],
)
def test_what_is_no_table_of_scores_is_said(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(InputError, match=r"scores\.csv") as caught:
        read_scores(tmp_path / "scores.csv")
    assert told in str(caught.value)


def test_a_table_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_scores(tmp_path / "scores.csv")


def test_methods_of_other_folders_make_the_numbers_of_one_comparison(tmp_path: Path) -> None:
    labels = ("set_and_sequence", "two_stage", "lora-8")
    apart = [a_folder(tmp_path / "b", ("lora-8",)), a_folder(tmp_path / "a", ("set_and_sequence", "two_stage"))]
    whole, record = a_record(labels), joined(apart)[0]
    assert [method.entry.label for method in record.methods] == list(labels)
    assert [cell.entry for cell in record.cells] == [label for label in labels for _ in CONCEPTS]
    assert (record.seconds, record.starts, record.notes) == (180.0, 2, ("a note",))
    for found, wanted in ((record.scores.tables, whole.scores.tables), (record.scores.kinds, whole.scores.kinds)):
        assert found.keys() == wanted.keys()
    for row, means in whole.scores.tables["edits"].items():
        for metric, mean in means.items():
            found_mean = record.scores.tables["edits"][row][metric]
            assert found_mean.mean == pytest.approx(mean.mean, rel=1e-5)
            assert (found_mean.low is None) == (mean.low is None)
            assert found_mean.low is None or found_mean.low == pytest.approx(mean.low, rel=1e-5)
    verdicts = [(finding.ordering.statement, finding.metric, finding.verdict) for finding in whole.scores.findings]
    assert [(each.ordering.statement, each.metric, each.verdict) for each in record.scores.findings] == verdicts
    assert verdicts, "two of the paper's statements are about these"


def test_one_folder_alone_is_told_as_it_is(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "a", ("lora-8",))
    assert joined([folder]) == (a_record(("lora-8",)), read_scores(folder / "scores.csv"))


def test_what_was_kept_stands_beside_what_came_later(tmp_path: Path) -> None:
    first, later = a_folder(tmp_path / "a", ("set_and_sequence",)), a_folder(tmp_path / "b", ("two_stage",))
    keep(*joined([first]), tmp_path / "kept")
    keep(*joined([tmp_path / "kept", later]), tmp_path / "kept")
    again, whole = joined([tmp_path / "kept"]), joined([first, later])
    assert (again[0].scores, again[0].methods, again[1]) == (whole[0].scores, whole[0].methods, whole[1])
    assert HERE not in (tmp_path / "kept" / "compare.json").read_text(), "no path of one machine"
    rows = [(sample.concept, sample.row) for sample in read_scores(tmp_path / "kept" / "scores.csv")]
    assert rows.count((CONCEPTS[0], BASE_ROW)) == 6, "once, whatever folders brought it along"


@pytest.mark.parametrize(
    ("labels", "changed", "told"),
    [
        (("lora-8",), {}, "lora-8"),
        (("lora-1",), {"seeds": (0, 1, 2)}, "seeds"),
        (("lora-1",), {"models": {"judge": "9876"}}, "9876"),
        (("lora-1",), {"concepts": {"g0": "fast"}}, "concepts"),
    ],
)
def test_what_does_not_stand_beside_the_first_is_refused(
    tmp_path: Path, labels: tuple[str, ...], changed: dict[str, object], told: str
) -> None:
    folders = [a_folder(tmp_path / "a", ("lora-8",)), a_folder(tmp_path / "b", labels, **changed)]
    with pytest.raises(InputError, match=told):
        joined(folders)


def test_a_folder_without_a_comparison_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no comparison"):
        joined([tmp_path])
