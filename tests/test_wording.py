"""How a concept is spoken of: one rule for training, runs and exported concepts."""

from __future__ import annotations

import pytest

from pipeline_lib.records import Caption, Wording
from pipeline_lib.training.encode import EncodingSettings, training_prompts
from pipeline_lib.training.text import TokenDropSettings

WORDS = Wording(subject="<v> dog", motion="<u>", phrases=("moving", "moving up", ""))


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("a {subject}, red, moving, at night", "a <v> dog, red, <u> moving, at night"),
        ("a {subject}, moving up", "a <v> dog, <u> moving up"),
        ("a {subject} Moving up a hill", "a <v> dog <u> Moving up a hill"),
        ("a {subject} on a moving van, moving", "a <v> dog on a moving van, <u> moving"),
        ("a {subject}, unmoving", "a <v> dog, unmoving, <u>"),
        ("a {subject} in the snow", "a <v> dog in the snow, <u>"),
        ("a cat", "a cat, <u>"),
    ],
)
def test_the_motion_word_goes_before_its_phrase_or_to_the_end(text: str, filled: str) -> None:
    assert WORDS.fill(text) == filled


def test_without_a_motion_word_only_the_subject_is_put_in() -> None:
    assert Wording(subject="zwx dog", phrases=("moving",)).fill("a {subject}, moving") == "a zwx dog, moving"


@pytest.mark.parametrize("motion", ["", "hopping"])
def test_training_reads_what_a_run_samples(motion: str) -> None:
    caption = Caption(class_noun="dog", static="red", motion=motion, background="on ice", camera="static camera")
    settings = EncodingSettings(
        num_frames=1, drop=TokenDropSettings(probability=0, variants=1), subject="<v> dog", motion="<u>"
    )
    (static,), (full,) = training_prompts([caption], settings)
    assert static == caption.static_prompt("<v> dog")
    words = Wording(subject="<v> dog", motion="<u>", phrases=(motion,))
    assert full == words.fill(caption.full_prompt("{subject}"))
    assert full.count("<u>") == 1
