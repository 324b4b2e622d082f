"""Prompts made from a caption and read from files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.errors import InputError
from pipeline_lib.generation.prompts import check_prompts, default_prompts, read_prompts
from pipeline_lib.records import Caption, Prompt

CAPTION = Caption(
    class_noun="creature",
    static="striped green, wearing a hat",
    motion="bouncing up and down",
    background="on a beach",
    light="at night",
    camera="static camera",
)
ANY_CAPTION = st.builds(
    Caption,
    class_noun=st.sampled_from(["dog", "creature"]),
    static=st.sampled_from(["", "red, wearing a hat", "with a scarf and sunglasses"]),
    motion=st.sampled_from(["", "running to the left"]),
    background=st.sampled_from(["", "in the snow", "on a sandy shore", "in a city street", "in the woods"]),
    light=st.sampled_from(["", "at sunset", "in the dark night"]),
    camera=st.sampled_from(["", "the camera zooms in", "the camera pans left"]),
)


def test_the_reconstruction_is_the_caption() -> None:
    first = default_prompts(CAPTION)[0]
    assert first.kind == "reconstruction"
    assert first.filled("sks creature") == CAPTION.full_prompt("sks creature")


def test_edits_leave_out_what_is_there() -> None:
    prompts = [prompt.text for prompt in default_prompts(CAPTION)]
    assert prompts[1:] == [
        "a {subject} wearing a red scarf, striped green, wearing a hat, bouncing up and down, on a beach, at night, "
        "static camera",
        "a {subject} wearing glasses, striped green, wearing a hat, bouncing up and down, on a beach, at night, "
        "static camera",
        "a {subject} holding a balloon, striped green, wearing a hat, bouncing up and down, on a beach, at night, "
        "static camera",
        "a {subject}, striped green, wearing a hat, bouncing up and down, on a snowy field, at night, static camera",
        "a {subject}, striped green, wearing a hat, bouncing up and down, in a forest, at night, static camera",
        "a {subject}, striped green, wearing a hat, bouncing up and down, on a beach, at dusk, static camera",
        "a {subject}, striped green, wearing a hat, bouncing up and down, on a beach, at night, the camera zooms in",
    ]


@given(caption=ANY_CAPTION)
def test_any_caption_gives_distinct_edits_that_keep_the_motion(caption: Caption) -> None:
    prompts = default_prompts(caption)
    kinds = [prompt.kind for prompt in prompts]
    assert kinds[0] == "reconstruction" and kinds.count("local") >= 2 and kinds.count("global") >= 3
    assert len({prompt.text for prompt in prompts}) == len(prompts)
    for prompt in prompts:
        assert prompt.text.startswith("a {subject}") and caption.motion in prompt.text
        filled = prompt.filled("dog")
        assert len(filled.split(", ")) == len(set(filled.split(", ")))


def test_text_files(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("# mine\n\na {subject} on the moon\n  a dog alone  \n", encoding="utf-8-sig")
    assert [(prompt.text, prompt.kind) for prompt in read_prompts(path)] == [
        ("a {subject} on the moon", "user"),
        ("a dog alone", "user"),
    ]


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json"])
def test_lists(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"prompts{suffix}"
    path.write_text(json.dumps(["a {subject}", {"text": "{subject} at night", "kind": "global", "negative": "fog"}]))
    first, second = read_prompts(path)
    assert first.text == "a {subject}"
    assert (second.text, second.kind, second.negative) == ("{subject} at night", "global", "fog")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "", "no prompts"),
        ("p.txt", "a {subject}\na {Subject}\n", r"p\.txt, line 2.*\{Subject\}"),
        ("p.json", '["a",\n "b"', r"line 2, is not JSON"),
        ("p.yaml", "- a\n- [b\n", r"line \d, is not YAML"),
        ("p.yaml", "text: a\n", "not a list"),
        ("p.yaml", "- a\n- 3\n", "item 2, is not a prompt"),
        ("p.yaml", "- text: a\n  kimd: local\n", "item 1, is not a prompt.*kimd"),
        ("p.yaml", "- ' '\n", "item 1, is an empty prompt"),
        ("p.yaml", "", "not a list"),
        ("p.csv", "a", "no prompts file"),
    ],
)
def test_bad_files_are_named_with_the_place(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_prompts(path)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.txt"):
        read_prompts(tmp_path / "absent.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(InputError, match=r"binary\.txt"):
        read_prompts(tmp_path / "binary.txt")


def test_prompts_that_name_the_class_are_read_as_of_the_subject() -> None:
    asked = [Prompt(text="a {subject}, at night"), Prompt(text="A Dog and a dogsled", kind="local")]
    checked, notes = check_prompts(asked, "dog")
    assert [(prompt.text, prompt.kind) for prompt in checked] == [
        ("a {subject}, at night", "user"),
        ("A {subject} and a dogsled", "local"),
    ]
    assert notes == ["the prompt 'A Dog and a dogsled' is read as 'A {subject} and a dogsled'"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a dogsled in the snow", "does not say where the subject goes.*a {subject} on the beach"),
        ("a {subject} and {other}", "unknown placeholder.*{other}"),
        ("a {subject", "unknown placeholder.*{"),
        ("  ", "empty"),
    ],
)
def test_prompts_that_cannot_be_used_are_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_prompts([Prompt(text=text)], "dog")
