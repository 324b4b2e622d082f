"""Captions as text: what a model or a person writes is read leniently and made harmless."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline_lib.captions.fields import (
    FIELDS,
    MAX_FIELD,
    clean_noun,
    clean_text,
    format_fields,
    parse_fields,
    split_subject,
)
from pipeline_lib.errors import InputError
from pipeline_lib.records import Caption

CAPTION = Caption(
    class_noun="dog",
    static="brown, wearing a red hat",
    motion="running to the left",
    camera="static camera",
    background="on a beach",
    light="at dusk",
)


@pytest.mark.parametrize(
    "text",
    [
        CAPTION.model_dump_json(),
        f"Sure! Here it is:\n```json\n{CAPTION.model_dump_json(indent=2)}\n```\nHope this helps.",
        format_fields(CAPTION),
        format_fields(CAPTION).replace("class_noun", "Class noun").replace("static:", "- Appearance ="),
        "1. " + format_fields(CAPTION).replace("\n", "\n1. "),
    ],
)
def test_every_way_of_writing(text: str) -> None:
    assert parse_fields(text) == CAPTION


def test_missing_and_empty_fields() -> None:
    text = json.dumps({"class_noun": "dog", "motion": "none", "camera": "N/A", "mood": "happy", "light": 3})
    assert parse_fields(text) == Caption(class_noun="dog", light="3")


@pytest.mark.parametrize(
    "text", ["", "a dog on a beach", "{}", '{"class_noun": ""}', "[1, 2]", "{" * 9999, "static: brown"]
)
def test_what_is_no_caption(text: str) -> None:
    with pytest.raises(InputError, match="not a caption"):
        parse_fields(text)


def test_dangerous_text_is_made_harmless() -> None:
    text = "a\x00 dog\x1b[31m <extra_id_0> {subject} <|im_end|>\u202e\u200b\nnew  line."
    assert clean_text(text) == "a dog[31m subject new line"


def test_long_text_is_cut_at_a_word() -> None:
    cut = clean_text("word " * 200)
    assert len(cut) <= MAX_FIELD
    assert cut.endswith("word")
    assert len(clean_text("x" * 1000)) == MAX_FIELD


@given(st.text(max_size=400))
@example("0`.")
@example("word" * 39 + "...' more")
def test_cleaning_is_idempotent_and_safe(text: str) -> None:
    once = clean_text(text)
    assert clean_text(once) == once
    assert len(once) <= MAX_FIELD
    assert once.isprintable()
    assert not set(once) & set("<>{}|\n\r\t")


@given(st.text(max_size=400))
def test_parsing_never_fails_otherwise(text: str) -> None:
    try:
        caption = parse_fields(text)
    except InputError:
        return
    assert caption.class_noun


@given(st.builds(Caption, **{name: st.text("abc ,-", min_size=1, max_size=30) for name in FIELDS}))
def test_format_round_trip(caption: Caption) -> None:
    clean = Caption(**{name: clean_text(getattr(caption, name)) for name in FIELDS})
    if clean.class_noun in ("", "-"):
        return
    again = parse_fields(format_fields(clean))
    assert again == Caption(**{name: "" if getattr(clean, name) == "-" else getattr(clean, name) for name in FIELDS})


def test_noun() -> None:
    assert clean_noun(" a toy  car. ") == "toy car"
    assert clean_noun("The Dog") == "Dog"
    with pytest.raises(InputError, match="the subject has no name"):
        clean_noun(" \n<b>")


@pytest.mark.parametrize(
    ("subject", "named", "parts"),
    [
        ("dog", "", ("dog", "")),
        ("a grey wolf", "", ("wolf", "grey")),
        ("my plush bear with a bow", "", ("bear", "plush, with a bow")),
        ("statue of a horse in a park", "", ("statue", "of a horse in a park")),
        ("old man, wearing a hat", "", ("man", "old, wearing a hat")),
        ("one-on-one coach", "", ("coach", "one-on-one")),
        ("white wolf pup", "Wolf Pup", ("Wolf Pup", "white")),
        ("werewolf", "wolf", ("wolf", "")),
        ("with a hat", "bear", ("bear", "with a hat")),
        ("", "bear", ("bear", "")),
    ],
)
def test_the_head_noun_is_the_class(subject: str, named: str, parts: tuple[str, str]) -> None:
    assert split_subject(subject, named) == parts


def test_a_subject_without_a_noun_is_refused() -> None:
    with pytest.raises(InputError, match="has no name"):
        split_subject("  the ")
