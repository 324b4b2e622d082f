"""A run whose truth is known: its key, its rows, and reasons where the judge cannot read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib import registry
from pipeline_lib.errors import InputError
from pipeline_lib.metrics import ScoredSample
from pipeline_lib.personalize import run_in_process
from pipeline_lib.pocket.judge import Gallery
from pipeline_lib.registry import TRUTHS
from pipeline_lib.run_config import with_settings
from pipeline_lib.steps.check import check_config
from pipeline_lib.steps.evaluate import load_scores
from pipeline_lib.steps.run_folder import RunFolder, RunRecord, fingerprint
from tests.steps.conftest import Finished

pytestmark = pytest.mark.skipif(
    not all(path.is_file() for path in TRUTHS["gizmo"].weights), reason="the judge is not trained yet"
)
NAMES = ("identity_accuracy", "motion_fidelity", "edit_accuracy")


def again(
    finished: Finished, truth: str, on_event: Callable[[dict[str, Any]], None] = lambda _event: None
) -> RunRecord:
    config = with_settings(finished.config, [f"evaluation.truth={truth}"])
    result = run_in_process(config, finished.state, on_event)
    record = RunFolder(finished.state, result.run_id).record()
    assert record is not None
    return record


@pytest.fixture(scope="module")
def judged(finished: Finished) -> RunRecord:
    return again(finished, "gizmo:1")


def samples_of(finished: Finished, record: RunRecord, row: str) -> list[ScoredSample]:
    return [one for one in load_scores(finished.state.store, record.steps["evaluate"].ref) if one.row == row]


def test_only_scores_and_report_are_made_again(finished: Finished, judged: RunRecord) -> None:
    assert {name for name, step in judged.steps.items() if not step.found} == {"evaluate", "report"}
    plain = RunFolder(finished.state, finished.result.run_id).record()
    assert plain is not None
    assert "chance" not in plain.scores
    assert not set(NAMES) & set(plain.scores["base"])


def test_frames_that_the_judge_cannot_read_have_no_score(finished: Finished, judged: RunRecord) -> None:
    for row in ("base", "personalised", "ceiling"):
        for sample in samples_of(finished, judged, row):
            scores = {score.metric: score for score in sample.scores}
            assert set(NAMES) <= set(scores)
            unknown = sample.kind == "user"
            assert all(scores[name].value is None for name in NAMES)
            assert all(("not known" if unknown else "32×32") in scores[name].reason for name in NAMES)


def test_chance_is_the_other_gizmos_under_known_prompts(finished: Finished, judged: RunRecord) -> None:
    chance = samples_of(finished, judged, "chance")
    assert {sample.kind for sample in chance} == {"reconstruction"}, "the person's own prompt is not known"
    assert [sample.seed for sample in chance] == list(range(11))
    found = {score.metric for sample in chance for score in sample.scores}
    assert found == set(NAMES), "encoders compare nothing with frames of another size"
    assert -1 <= judged.scores_reconstruction["chance"]["motion_fidelity"] < 0.6
    assert 0 <= judged.scores_reconstruction["chance"]["identity_accuracy"] < 0.2
    assert "chance" not in judged.scores_edits


def test_its_progress_counts_what_the_truth_gives(finished: Finished) -> None:
    events: list[dict[str, Any]] = []
    again(finished, "gizmo:2", events.append)
    told = [(event["done"], event["total"]) for event in events if event.get("step") == "evaluate" and "done" in event]
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    assert {total for _, total in told} == {len(told)}


def test_another_judge_is_another_key(
    finished: Finished, judged: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(judged.config)
    networks, gallery = TRUTHS["gizmo"].weights
    stricter = tmp_path / "gallery.safetensors"
    loaded = Gallery.load(gallery)
    dataclasses.replace(loaded, threshold=loaded.threshold + 0.01).save(stricter)
    changed = TRUTHS["gizmo"]._replace(weights=(networks, stricter))
    monkeypatch.setitem(registry.TRUTHS, "gizmo", changed)
    assert fingerprint(judged.config) != before
    other = again(finished, "gizmo:1")
    assert other.steps["evaluate"].ref.key != judged.steps["evaluate"].ref.key


def test_a_truth_that_there_is_not_is_told_at_once(finished: Finished) -> None:
    with pytest.raises(InputError, match="no such gizmo"):
        check_config(with_settings(finished.config, ["evaluation.truth=gizmo:99"]))
