"""The truth about gizmos, read by the published judge from rendered clips: order and reasons, no fixed values."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.features.truth import TruthReader
from pipeline_lib.records import Prompt, Score
from pipeline_lib.registry import TRUTHS, open_truth
from pipeline_lib.run_config import RunConfig, with_settings
from pipeline_lib.world.gizmos import EditingPrompt, gizmo
from pipeline_lib.world.render import render

SOME = (1, 4, 15)
"""Of both dozens."""
AGAIN = Prompt(text="a {subject} again", kind="reconstruction")

pytestmark = pytest.mark.skipif(
    not all(path.is_file() for path in TRUTHS["gizmo"].weights), reason="the judge is not trained yet"
)


def reader_of(index: int) -> TruthReader:
    reader = open_truth(with_settings(RunConfig(), [f"evaluation.truth=gizmo:{index}"]))
    assert isinstance(reader, TruthReader)
    return reader


@pytest.fixture(scope="module")
def readers() -> dict[int, TruthReader]:
    return {index: reader_of(index) for index in SOME}


def clip_of(index: int) -> np.ndarray:
    return render(gizmo(index).reference).frames


def asked_for(index: int, field: str) -> Prompt:
    """The first editing prompt of a gizmo for a word of this field."""
    found: EditingPrompt = next(
        prompt for prompt in gizmo(index).editing_prompts[1:] if set(prompt.attributes) - {"background"} >= {field}
    )
    return Prompt(text=found.text, kind=found.kind)


def values(scores: list[Score]) -> dict[str, float | None]:
    return {score.metric: score.value for score in scores}


def mean(rows: list[dict[str, float | None]], metric: str) -> float:
    kept = [row[metric] for row in rows if row[metric] is not None]
    assert kept, metric
    return float(np.mean(kept))


def test_the_reference_clip_scores_higher_than_other_gizmos_clips(readers: dict[int, TruthReader]) -> None:
    own = [values(reader.score(clip_of(index), AGAIN)) for index, reader in readers.items()]
    others = [values(other.scores) for reader in readers.values() for other in reader.chance(AGAIN)]
    assert len(others) == 11 * len(SOME)
    for metric in ("identity_accuracy", "motion_fidelity"):
        assert mean(own, metric) > mean(others, metric), metric
    assert mean(own, "motion_fidelity") > 0.8
    assert mean(others, "motion_fidelity") < 0.6
    assert mean(others, "identity_accuracy") < 0.1
    assert all(row["edit_accuracy"] is None for row in (*own, *others))


def test_the_clip_that_an_edit_asks_for_scores_higher_than_chance(readers: dict[int, TruthReader]) -> None:
    reader = readers[4]
    prompts = [Prompt(text=one.text, kind=one.kind) for one in gizmo(4).editing_prompts if one.kind != "reconstruction"]
    assert len(prompts) == 10
    shown = []
    for prompt in prompts:
        wanted = reader.wanted(prompt)
        assert wanted is not None
        assert wanted.shape == clip_of(4).shape
        assert not np.array_equal(wanted, clip_of(4))
        shown.append(values(reader.score(wanted, prompt)))
    others = [other for prompt in prompts for other in reader.chance(prompt)]
    chance = [values(other.scores) for other in others]
    assert all(other.frames.shape == clip_of(4).shape for other in others)
    assert not any(np.array_equal(other.frames, clip_of(4)) for other in others)
    assert mean(shown, "edit_accuracy") > 0.6
    assert mean(chance, "edit_accuracy") < 0.4
    assert reader.wanted(AGAIN) is None, "its ceiling is the reference"


def test_what_a_prompt_has_no_truth_for_is_told(readers: dict[int, TruthReader]) -> None:
    reader, clip = readers[4], clip_of(4)

    def reasons(frames: np.ndarray, prompt: Prompt) -> dict[str, str]:
        return {score.metric: score.reason for score in reader.score(frames, prompt) if score.value is None}

    mine = Prompt(text="a {subject} on a bicycle")
    assert set(reasons(clip, mine).values()) == {"the truth about this prompt is not known"}
    assert reader.chance(mine) == []
    assert reader.wanted(mine) is None
    assert reasons(clip, AGAIN) == {"edit_accuracy": "nothing asked for differs from the reference"}
    assert set(reasons(clip, asked_for(4, "colour"))) == {"identity_accuracy"}
    assert set(reasons(clip, asked_for(4, "camera"))) == {"motion_fidelity"}
    assert reasons(clip, asked_for(4, "accessory")) == {}
    assert set(reasons(clip[:, ::2, ::2], AGAIN).values()) == {"the judge reads frames of 64×64, these are 32×32"}
    assert reasons(clip[:1], AGAIN)["motion_fidelity"], "a picture has no motion"


def test_scores_are_traceable_and_the_same_each_time(readers: dict[int, TruthReader]) -> None:
    hat = asked_for(4, "accessory")
    scores = readers[4].score(clip_of(4), hat)
    assert scores == reader_of(4).score(clip_of(4), hat)
    assert [score.metric for score in scores] == ["identity_accuracy", "motion_fidelity", "edit_accuracy"]
    for score in scores:
        assert score.encoder == "pocket judge"
        assert len(score.encoder_digest) == 64
        assert score.low <= (score.value or 0.0) <= score.high
        assert score.frames_per_second == 8
    traces = {
        (s.encoder, s.encoder_digest, s.preprocessing) for r in readers.values() for s in r.score(clip_of(1), hat)
    }
    assert len(traces) == 1, "scores of all gizmos belong into one column"


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        ("gizmo:99", "no such gizmo"),
        ("gizmo", "gizmo:NUMBER"),
        ("gizmo:-1", "gizmo:NUMBER"),
        ("dog:1", "gizmo:NUMBER"),
    ],
)
def test_truths_that_there_are_not_are_named(truth: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_truth(with_settings(RunConfig(), [f"evaluation.truth={truth}"]))
    assert open_truth(RunConfig()) is None
