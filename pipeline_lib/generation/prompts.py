"""Prompts to sample: made from a caption, or read from a user's file."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline_lib.errors import InputError
from pipeline_lib.records import Caption, Prompt

SUBJECT = "{subject}"
_PLACEHOLDER = re.compile(r"\{[^{}]*\}|[{}]")


@dataclass(frozen=True)
class _Edit:
    """What to say, and the words of which any one in the caption means that it is there already."""

    phrase: str
    said_by: tuple[str, ...]


_LOCAL = (
    _Edit("wearing a hat", ("hat", "cap", "hood", "helmet")),
    _Edit("wearing a red scarf", ("scarf", "collar", "shawl")),
    _Edit("wearing glasses", ("glasses", "sunglasses", "goggles")),
    _Edit("holding a balloon", ("balloon",)),
)
_BACKGROUNDS = (
    _Edit("on a snowy field", ("snow", "snowy", "ice", "winter")),
    _Edit("on a beach", ("beach", "sea", "shore", "sand", "sandy", "ocean")),
    _Edit("in a forest", ("forest", "woods", "trees", "jungle")),
    _Edit("in a city", ("city", "street", "urban", "town")),
)
_LIGHTS = (_Edit("at night", ("night", "dark")), _Edit("at dusk", ("dusk", "sunset", "evening")))
_CAMERAS = (_Edit("the camera zooms in", ("zoom", "zooms", "zooming")), _Edit("the camera pans left", ("pans", "pan")))
_LOCAL_COUNT, _BACKGROUND_COUNT = 3, 2


def default_prompts(caption: Caption) -> list[Prompt]:
    """A reconstruction, local edits and global edits of a captioned clip.

    Edits keep the motion and all that they do not change, and never ask for what is there already.

    Args:
        caption: of the clip; its motion phrase stands in every prompt.

    Returns:
        About eight prompts, the reconstruction first, with `{subject}` in place of the subject.
    """
    prompts = [Prompt(text=caption.full_prompt(SUBJECT), kind="reconstruction")]
    prompts += [
        Prompt(text=caption.full_prompt(f"{SUBJECT} {edit.phrase}"), kind="local")
        for edit in _fresh(_LOCAL, caption)[:_LOCAL_COUNT]
    ]
    changes = [("background", edit) for edit in _fresh(_BACKGROUNDS, caption)[:_BACKGROUND_COUNT]]
    changes += [("light", edit) for edit in _fresh(_LIGHTS, caption)[:1]]
    changes += [("camera", edit) for edit in _fresh(_CAMERAS, caption)[:1]]
    for field, edit in changes:
        edited = caption.model_copy(update={field: edit.phrase})
        prompts.append(Prompt(text=edited.full_prompt(SUBJECT), kind="global"))
    return prompts


def read_prompts(path: Path) -> list[Prompt]:
    """Reads a user's prompts.

    A text file holds one prompt per line; empty lines and lines that start with # are left out. A YAML or
    JSON file holds a list of texts, or of mappings with `text` and perhaps `kind` and `negative`.

    Args:
        path: `.txt`, `.yaml`, `.yml` or `.json`.

    Returns:
        The prompts, in order; at least one.

    Raises:
        InputError: no such file, not UTF-8, not of this form; the line or item is named.
    """
    suffix = path.suffix.lower()
    if path.is_file() and suffix not in (".txt", ".yaml", ".yml", ".json"):
        raise InputError(f"{path} is no prompts file", got=suffix or "no suffix", expected=".txt, .yaml, .yml or .json")
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(f"the prompts file {path} cannot be read", got=why, fix="check the path") from error
    except UnicodeDecodeError as error:
        fix = "save it as UTF-8, one prompt a line"
        raise InputError(f"the prompts file {path} is not text", got="bytes that are not UTF-8", fix=fix) from error
    items = _lines(content) if suffix == ".txt" else _items(content, path, is_json=suffix == ".json")
    prompts = [_prompt(value, f"{path}, {place}") for place, value in items]
    if not prompts:
        raise InputError(f"{path} holds no prompts", expected="one prompt per line, or a list")
    return prompts


def check_prompts(prompts: Sequence[Prompt], class_noun: str) -> tuple[list[Prompt], list[str]]:
    """Prompts as a person gave them, made to name the subject; the one check for all ways in.

    Args:
        prompts: of a config, a file or a command line.
        class_noun: e.g. "dog"; in a prompt without `{subject}` its first mention becomes the subject.

    Returns:
        The prompts, each with `{subject}`; a note for each that was changed.

    Raises:
        InputError: an empty prompt, an unknown placeholder, or one that does not speak of the subject.
    """
    checked, notes = [], []
    for prompt in prompts:
        _check_placeholders(prompt.text, f"the prompt {prompt.text!r}")
        text = prompt.text
        if SUBJECT not in text:
            text = re.sub(rf"(?<!\w){re.escape(class_noun)}(?!\w)", SUBJECT, text, count=1, flags=re.IGNORECASE)
            notes.append(f"the prompt {prompt.text!r} is read as {text!r}")
        if SUBJECT not in text:
            raise InputError(
                f"the prompt {prompt.text!r} does not say where the subject goes",
                expected=f"{SUBJECT} in its place, e.g. 'a {SUBJECT} on the beach'",
            )
        checked.append(prompt.model_copy(update={"text": text}))
    return checked, notes


def _fresh(edits: tuple[_Edit, ...], caption: Caption) -> list[_Edit]:
    words = set(re.findall(r"[a-z]+", caption.full_prompt(caption.class_noun).lower()))
    return [edit for edit in edits if words.isdisjoint(edit.said_by)]


def _lines(content: str) -> list[tuple[str, Any]]:
    numbered = enumerate((line.strip() for line in content.splitlines()), start=1)
    return [(f"line {number}", line) for number, line in numbered if line and not line.startswith("#")]


def _items(content: str, path: Path, *, is_json: bool) -> list[tuple[str, Any]]:
    try:
        values = json.loads(content) if is_json else yaml.safe_load(content)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}, is not JSON", got=error.msg) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path}, line {line}, is not YAML", got=str(error.problem)) from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML", got=str(error)) from error
    if not isinstance(values, list):
        raise InputError(f"{path} is not a list of prompts", got=type(values).__name__, expected="a list")
    return [(f"item {number}", value) for number, value in enumerate(values, start=1)]


_FORM = "a text, or a mapping with `text` and perhaps `kind` and `negative`"


def _prompt(value: Any, place: str) -> Prompt:
    fields = {"text": value} if isinstance(value, str) else value
    if not isinstance(fields, dict):
        raise InputError(f"{place}, is not a prompt", got=repr(value), expected=_FORM)
    try:
        prompt = Prompt.model_validate(fields)
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(map(str, problem["loc"]))
        got = f"{name}: {problem['msg']}"
        raise InputError(f"{place}, is not a prompt", got=got, expected=_FORM) from error
    _check_placeholders(prompt.text, place)
    return prompt


def _check_placeholders(text: str, place: str) -> None:
    if not text.strip():
        raise InputError(f"{place}, is an empty prompt")
    for found in _PLACEHOLDER.findall(text.replace(SUBJECT, "")):
        raise InputError(f"{place}, has an unknown placeholder", got=found, expected=SUBJECT)
