"""The truth about pairs, read by the published judge from rendered clips: order and halves, no fixed values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.features.truth import TruthReader
from pipeline_lib.records import Prompt, Score
from pipeline_lib.registry import TRUTHS, open_truth, truth_weights
from pipeline_lib.run_config import RunConfig, with_settings
from pipeline_lib.world.pairs import pair
from pipeline_lib.world.render import render
from pipeline_lib.world.scene import Motion, Scene

INDEX = 2
PAIR = pair(INDEX)
AGAIN = Prompt(text="a {subject} again", kind="reconstruction")

pytestmark = pytest.mark.skipif(
    not all(path.is_file() for path in TRUTHS["pair"].weights), reason="the judge is not trained yet"
)


def named(truth: str) -> RunConfig:
    return with_settings(RunConfig(), [f"evaluation.truth={truth}"])


@pytest.fixture(scope="module")
def reader() -> TruthReader:
    found = open_truth(named(f"pair:{INDEX}"))
    assert isinstance(found, TruthReader)
    return found


def values(scores: list[Score]) -> dict[str, float | None]:
    return {score.metric: score.value for score in scores}


def scored(reader: TruthReader, scene: Scene, prompt: Prompt = AGAIN) -> dict[str, float]:
    return {
        name: value for name, value in values(reader.score(render(scene).frames, prompt)).items() if value is not None
    }


def with_motions(scene: Scene, *motions: Motion) -> Scene:
    moved = [replace(one, motion=motion) for one, motion in zip(scene.subjects, motions, strict=True)]
    return replace(scene, subjects=tuple(moved))


def test_its_own_clip_scores_high_and_those_of_other_pairs_low(reader: TruthReader) -> None:
    own = scored(reader, PAIR.reference)
    assert own["identity_accuracy"] > 0.9
    assert own["motion_fidelity"] > 0.8
    assert "edit_accuracy" not in own, "nothing is asked for that differs"
    others = [values(other.scores) for other in reader.chance(AGAIN)]
    assert len(others) == 5
    for row in others:
        assert row["identity_accuracy"] is not None and row["identity_accuracy"] < 0.1
        assert row["motion_fidelity"] is not None and row["motion_fidelity"] < 0.6


def test_sides_do_not_matter(reader: TruthReader) -> None:
    elsewhere = scored(reader, PAIR.second)
    assert elsewhere["identity_accuracy"] > 0.9
    assert elsewhere["motion_fidelity"] > 0.8


def test_of_one_member_alone_or_twice_half_is_counted(reader: TruthReader) -> None:
    own, (left, right) = scored(reader, PAIR.reference), PAIR.reference.subjects
    twin = replace(left, position=right.position)
    for subjects in ((left,), (right,), (left, twin)):
        found = scored(reader, replace(PAIR.reference, subjects=subjects))
        assert found["identity_accuracy"] == pytest.approx(0.5, abs=0.1), "no subject stands for two members"
        assert found["motion_fidelity"] < own["motion_fidelity"] - 0.2
    nobody = reader.score(render(replace(PAIR.reference, subjects=())).frames, AGAIN)
    assert (nobody[0].value, nobody[0].reason, nobody[1].value) == (0.0, "no subject was found", 0.0)


def test_who_moves_like_the_other_one_moves_wrongly(reader: TruthReader) -> None:
    left, right = (subject.motion for subject in PAIR.reference.subjects)
    swapped, still = (
        scored(reader, with_motions(PAIR.reference, *motions))
        for motions in ((right, left), (Motion("still"), Motion("still")))
    )
    assert swapped["identity_accuracy"] > 0.9, "they are who they are"
    assert swapped["motion_fidelity"] < 0.6
    assert still["motion_fidelity"] == pytest.approx(0.0, abs=0.3)


def test_the_clips_that_its_prompts_ask_for_are_read_as_such(reader: TruthReader) -> None:
    prompts = [Prompt(text=one.text, kind=one.kind) for one in PAIR.editing_prompts[1:]]
    shown = [(prompt, reader.wanted(prompt)) for prompt in prompts]
    scores = [values(reader.score(frames, prompt)) for prompt, frames in shown if frames is not None]
    assert len(scores) == len(prompts) == 9
    edits, who = ([row[name] or 0.0 for row in scores] for name in ("edit_accuracy", "identity_accuracy"))
    assert np.mean(edits) > 0.9
    assert np.mean(who) > 0.8
    chance = [values(other.scores)["edit_accuracy"] or 0.0 for prompt in prompts for other in reader.chance(prompt)]
    assert np.mean(chance) < 0.3
    assert reader.wanted(AGAIN) is None, "its ceiling is the reference"


def test_an_accessory_counts_on_either_of_them(reader: TruthReader) -> None:
    asked = next(one for one in PAIR.editing_prompts if one.attributes.get("accessory") == "hat")
    prompt = Prompt(text=asked.text, kind=asked.kind)
    for index in (0, 1):
        worn = [replace(one, accessory="hat") if at == index else one for at, one in enumerate(PAIR.reference.subjects)]
        assert scored(reader, replace(PAIR.reference, subjects=tuple(worn)), prompt)["edit_accuracy"] == 1
    assert scored(reader, PAIR.reference, prompt)["edit_accuracy"] == 0


def test_pairs_that_there_are_not_are_told_before_anything_is_read() -> None:
    with pytest.raises(InputError, match="no such pair"):
        truth_weights(named("pair:6"))
    with pytest.raises(InputError, match="gizmo:NUMBER, pair:NUMBER"):
        truth_weights(named("pear:1"))
