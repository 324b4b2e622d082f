"""Methods of other folders as one comparison: the same numbers, and nothing beside what it cannot stand beside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline_lib.compare.cells import Cell
from pipeline_lib.compare.entries import CORE
from pipeline_lib.compare.folder import CompareRecord, Method
from pipeline_lib.compare.joined import joined, keep, read_record
from pipeline_lib.compare.paper import ORDERINGS
from pipeline_lib.compare.scores_file import read_scores, write_scores
from pipeline_lib.errors import InputError
from pipeline_lib.metrics import ScoredSample
from pipeline_lib.metrics.catalog import Measurement, Trace, to_score
from pipeline_lib.metrics.comparison import BASE, CEILING, CHANCE, compared
from pipeline_lib.seeding import derived_seed

CONCEPTS = [f"g{number}" for number in range(6)]
METRICS = ("identity_accuracy", "motion_fidelity", "edit_accuracy", "dino_i", "mse_edit")
PROMPTS = {"p": "reconstruction", "a {subject} with a hat": "local", "a red {subject}": "local", "in snow": "global"}
HERE = "/home/someone/mannerism_state/runs/g0/report.html"
MAIN, TWO, LORA = "set_and_sequence", "two_stage", "lora-8"


def a_sample(row: str, concept: str, prompt: str, seed: int) -> ScoredSample:
    """Shares of 13 frames, so that many are even; another look, of which the judge says nothing."""
    scores = []
    for metric in METRICS:
        share = derived_seed(seed, row, len(concept), metric, prompt) % 13 + CONCEPTS.index(concept)
        value = Measurement(min(share, 13) / 13)
        if prompt.startswith("a red") and metric == METRICS[0]:
            value = Measurement(None, "the prompt asks for another look")
        scores.append(to_score(metric, value, Trace(encoder="e")))
    return ScoredSample(row=row, prompt=prompt, kind=PROMPTS[prompt], seed=seed, concept=concept, scores=tuple(scores))


def samples_of(labels: Sequence[str], concepts: Sequence[str] = CONCEPTS) -> list[ScoredSample]:
    """Of methods, as one comparison has them: base, ceiling and chance with each concept."""
    return [
        a_sample(row, concept, prompt, seed)
        for row in (*labels, BASE, CEILING, CHANCE)
        for concept in concepts
        for prompt in PROMPTS
        for seed in (0, 1)
    ]


def a_record(labels: Sequence[str], **changed: object) -> CompareRecord:
    values = {
        "compare_id": f"compare-{labels[0]}",
        "started": "2026-01-02T00:00:00+00:00",
        "seconds": 90.0,
        "base": "/home/someone/bases/pocket",
        "seeds": (0, 1),
        "seed": 5,
        "methods": [Method(entry=entry, preset="demo", settings={}) for entry in CORE if entry.label in labels],
        "concepts": dict.fromkeys(CONCEPTS, "slow"),
        "cells": [Cell(entry=label, concept=name, status="done", report=HERE) for label in labels for name in CONCEPTS],
        "scores": compared(samples_of(labels), labels, ORDERINGS, {"slow": CONCEPTS}),
        "models": {"base": "/home/someone/bases/pocket 4567", "judge": "0123"},
        "notes": ["a note"],
        "num_blind_pairs": 7,
    }
    return CompareRecord.model_validate({**values, **changed})


def a_folder(
    path: Path, labels: Sequence[str], samples: Sequence[ScoredSample] | None = None, **changed: object
) -> Path:
    path.mkdir()
    (path / "compare.json").write_text(a_record(labels, **changed).model_dump_json())
    write_scores(samples_of(labels) if samples is None else samples, path / "scores.csv")
    return path


def test_methods_of_other_folders_make_the_very_numbers_of_one_comparison(tmp_path: Path) -> None:
    labels = (MAIN, TWO, LORA)
    whole, record = (
        a_record(labels),
        joined([a_folder(tmp_path / "b", (LORA,)), a_folder(tmp_path / "a", (MAIN, TWO))])[0],
    )
    assert [method.entry.label for method in record.methods] == list(labels)
    assert [cell.entry for cell in record.cells] == [label for label in labels for _ in CONCEPTS]
    assert (record.seconds, record.starts, record.notes, record.num_blind_pairs) == (180.0, 2, ("a note",), 0)
    assert record.scores == whole.scores
    assert whole.scores.findings
    assert whole.scores.kinds
    assert any(wins.tied for wins in whole.scores.wins)


def test_one_folder_alone_is_told_as_it_is(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "a", (LORA,))
    assert joined([folder]) == (a_record((LORA,)), read_scores(folder / "scores.csv"))


def test_what_was_kept_stands_beside_what_came_later(tmp_path: Path) -> None:
    first, later = a_folder(tmp_path / "a", (MAIN,)), a_folder(tmp_path / "b", (TWO,))
    keep(*joined([first]), tmp_path / "kept")
    keep(*joined([tmp_path / "kept", later]), tmp_path / "kept")
    again, whole = joined([tmp_path / "kept"]), joined([first, later])
    assert (again[0].scores, again[0].methods, again[1]) == (whole[0].scores, whole[0].methods, whole[1])
    assert "/home/someone" not in (tmp_path / "kept" / "compare.json").read_text(), "no path of one machine"
    rows = [(sample.concept, sample.row) for sample in read_scores(tmp_path / "kept" / "scores.csv")]
    assert rows.count((CONCEPTS[0], BASE)) == 2 * len(PROMPTS), "once, whatever folders brought it along"
    assert again[0].num_blind_pairs == 0


def test_cells_that_are_missing_in_one_of_them_are_said(tmp_path: Path) -> None:
    cells = [Cell(entry=TWO, concept=name, status="done" if name != "g0" else "failed") for name in CONCEPTS]
    part = a_folder(tmp_path / "b", (TWO,), samples_of((TWO,), CONCEPTS[1:]), cells=cells)
    record, _ = joined([a_folder(tmp_path / "a", (MAIN,)), part])
    assert len(record.notes) == 2
    assert "cells are missing" in record.notes[1]
    assert record.scores.trade_off is not None
    assert record.scores.trade_off.together[0].gains[TWO].num_concepts == len(CONCEPTS) - 1


@pytest.mark.parametrize(
    ("label", "changed", "told"),
    [
        (LORA, {}, "compared twice"),
        (TWO, {"seeds": (0, 1, 2)}, "seeds"),
        (TWO, {"models": {"base": "/home/someone/bases/pocket 4567", "judge": "9876"}}, "9876"),
        (TWO, {"models": {"base": "/home/someone/bases/pocket 8888", "judge": "0123"}}, "8888"),
        (TWO, {"concepts": {"g0": "fast"}}, "concepts"),
    ],
)
def test_comparisons_of_other_facts_are_refused(
    tmp_path: Path, label: str, changed: dict[str, object], told: str
) -> None:
    folders = [a_folder(tmp_path / "a", (LORA,)), a_folder(tmp_path / "b", (label,), **changed)]
    with pytest.raises(InputError, match=told):
        joined(folders)


def test_other_prompts_and_other_scores_of_the_base_are_refused(tmp_path: Path) -> None:
    """As of another gallery of the judge, or of other sampling steps: no record tells of them."""
    first, samples = a_folder(tmp_path / "a", (LORA,)), samples_of((TWO,))
    fewer = [sample for sample in samples if sample.prompt != "in snow"]
    (score, *rest) = samples[-1].scores
    other = score.model_copy(update={"value": 0.5 * (score.value or 1.0)})
    changed = [*samples[:-1], samples[-1].model_copy(update={"scores": (other, *rest)})]
    for name, own in (("fewer", fewer), ("changed", changed)):
        with pytest.raises(InputError, match="does not stand beside the first") as caught:
            joined([first, a_folder(tmp_path / name, (TWO,), own)])
        assert name in str(caught.value)


def test_what_came_before_encoders_scored_chance_takes_it_from_what_came_later(tmp_path: Path) -> None:
    def by_the_truth(sample: ScoredSample) -> ScoredSample:
        told = sample.row == CHANCE or (sample.row == CEILING and sample.kind != "reconstruction")
        scores = tuple(score for score in sample.scores if not told or score.metric in METRICS[:3])
        return sample.model_copy(update={"scores": scores})

    before = a_folder(tmp_path / "a", (MAIN,), [by_the_truth(sample) for sample in samples_of((MAIN,))])
    later = a_folder(tmp_path / "b", (TWO,))
    for folders in ([before, later], [later, before]):
        record, samples = joined(folders)
        assert record.scores == a_record((MAIN, TWO)).scores
        assert {len(sample.scores) for sample in samples if sample.row == CHANCE} == {3, 5}, "3: of another look"


def test_windows_of_one_name_are_all_kept(tmp_path: Path) -> None:
    twin = a_sample(CEILING, CONCEPTS[0], "p", 0)
    other = twin.model_copy(update={"scores": twin.scores[:1]})
    first = a_folder(tmp_path / "a", (MAIN,), [*samples_of((MAIN,)), other])
    _, samples = joined([first, a_folder(tmp_path / "b", (TWO,), [*samples_of((TWO,)), other])])
    windows = [s for s in samples if (s.row, s.concept, s.prompt, s.seed) == (CEILING, CONCEPTS[0], "p", 0)]
    assert [len(window.scores) for window in windows] == [len(twin.scores), 1]


def test_scores_of_another_comparison_are_refused(tmp_path: Path) -> None:
    wrong = a_folder(tmp_path / "b", (TWO,), samples_of((MAIN,)))
    with pytest.raises(InputError, match="is not of the comparison beside it"):
        joined([a_folder(tmp_path / "a", (LORA,)), wrong])


def test_what_is_no_record_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        joined([tmp_path])
    (tmp_path / "compare.json").write_text('{"schema_version": 1}')
    with pytest.raises(InputError, match="another version"):
        read_record(tmp_path / "compare.json")
