"""The caption's fields as text: reading what a model or a person wrote, and making it harmless."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping

from pipeline_lib.errors import InputError
from pipeline_lib.records import Caption

MAX_FIELD = 300
"""Longest field, in characters: what is longer is cut at a word."""

FIELDS = tuple(Caption.model_fields)
"""The field names, in order: class_noun, static, motion, camera, background, light."""

_ALIASES = {
    "class": "class_noun", "class noun": "class_noun", "noun": "class_noun", "subject": "class_noun",
    "appearance": "static", "static": "static", "camera motion": "camera", "camera movement": "camera",
    "setting": "background", "lighting": "light", "action": "motion", "movement": "motion",
}  # fmt: skip
_EMPTY = frozenset({"", "none", "n/a", "na", "null", "unknown", "not applicable", "-"})
# Angle brackets and braces would let a caption speak as a special token or as the subject's placeholder.
_MARKUP = re.compile(r"<[^<>]{0,60}>|[<>{}|]")
_DETERMINERS = re.compile(r"^(a|an|the|my|our|your|his|her|its|their|this|that|some)(\s+|$)", re.IGNORECASE)
_BREAK = re.compile(
    r",|(?<![\w-])(?:with|without|in|on|of|at|from|by|near|under|behind|wearing|holding|carrying|that|who|which)(?![\w-])",
    re.IGNORECASE,
)
_LINE = re.compile(r"^\s*[-*\d.]*\s*[\"']?([A-Za-z][A-Za-z _]{1,24}?)[\"']?\s*[:=]\s*(.*)$")


_AROUND = " \"'`,;"
_AFTER = f"{_AROUND}."


def clean_text(text: str, longest: int = MAX_FIELD) -> str:
    """Untrusted words as one harmless line.

    Control and invisible characters, markup, surrounding quotes and a final full stop are removed,
    white space is joined, and what is longer than `longest` is cut at a word.
    """
    plain = unicodedata.normalize("NFKC", text)
    visible = "".join(" " if c.isspace() else c for c in plain if c.isspace() or unicodedata.category(c)[0] != "C")
    words = " ".join(_MARKUP.sub(" ", visible).split()).strip(_AROUND).rstrip(_AFTER)
    if len(words) <= longest:
        return words
    cut = words[: longest + 1].rsplit(" ", 1)[0]
    return cut[:longest].rstrip(_AFTER)


def clean_noun(subject: str) -> str:
    """The user's noun without article, made harmless.

    Args:
        subject: what the user calls the subject; untrusted.

    Returns:
        The noun, at most 60 characters, e.g. "dog" for "a dog".

    Raises:
        InputError: nothing is left.
    """
    noun = re.sub(r"^(a|an|the)\s+", "", clean_text(subject, 60), flags=re.IGNORECASE)
    if not noun:
        raise InputError("the subject has no name", got=repr(subject), expected='a noun such as "dog"', fix="name it")
    return noun


def split_subject(subject: str, class_noun: str = "") -> tuple[str, str]:
    """The class noun in a person's words for the subject, and the rest as words of appearance.

    The noun is the last word before the first comma or preposition: "plush bear with a bow" is a bear,
    "plush, with a bow". Where that is not meant ("polar bear cub"), the person names the noun.

    Args:
        subject: what the person calls the subject; untrusted.
        class_noun: the noun where the person named it; it wins.

    Returns:
        The noun, and the rest for a caption's `static`, perhaps empty.

    Raises:
        InputError: there is no noun.
    """
    words = _DETERMINERS.sub("", clean_text(subject, 120))
    named = clean_noun(class_noun) if class_noun else ""
    cut = _BREAK.search(words)
    before, after = (words[: cut.start()].strip(), words[cut.start() :].strip(" ,")) if cut else (words, "")
    if not before:
        return (named, words) if named else (clean_noun(words), "")
    own, size = before.split(), len(named.split())
    length = size if named and [word.lower() for word in own[-size:]] == named.lower().split() else 1
    looks = " ".join(own[:-length])
    return named or clean_noun(own[-1]), ", ".join(part for part in (looks, after) if part)


def read_fields(text: str) -> dict[str, str]:
    """The known fields in a text: a JSON object, or lines `field: value`, with or without prose around.

    Args:
        text: untrusted.

    Returns:
        Cleaned values by field name; unknown fields are left out, "none" and the like are "".
    """
    found = _json_fields(text) or _line_fields(text)
    return {name: "" if clean_text(value).lower() in _EMPTY else clean_text(value) for name, value in found.items()}


def parse_fields(text: str) -> Caption:
    """A caption written as JSON or as lines `field: value`.

    Args:
        text: untrusted; `class_noun` is required, the other fields may be missing.

    Returns:
        The caption; fields that were missing are empty.

    Raises:
        InputError: no field can be read, or `class_noun` is missing.
    """
    found = read_fields(text)
    if not found.get("class_noun"):
        raise InputError(
            "the text is not a caption",
            got=repr(clean_text(text, 80)),
            expected=f"the fields {', '.join(FIELDS)}, as JSON or one `field: value` a line",
            fix="class_noun at least is needed",
        )
    return Caption(**found)


def format_fields(caption: Caption) -> str:
    """The caption as lines `field: value`, which :func:`parse_fields` reads back."""
    return "\n".join(f"{name}: {getattr(caption, name)}" for name in FIELDS)


def _json_fields(text: str) -> dict[str, str]:
    start, stop = text.find("{"), text.rfind("}")
    if start < 0 or stop < start:
        return {}
    try:
        value = json.loads(text[start : stop + 1])
    except (ValueError, RecursionError):
        return {}
    return _known(value) if isinstance(value, dict) else {}


def _line_fields(text: str) -> dict[str, str]:
    pairs = [(match[1], match[2]) for line in text.splitlines() if (match := _LINE.match(line))]
    return _known(dict(reversed(pairs)))


def _known(values: Mapping[str, object]) -> dict[str, str]:
    found = {}
    for name, value in values.items():
        key = str(name).strip().lower().replace("_", " ")
        field = _ALIASES.get(key, key.replace(" ", "_"))
        if field in FIELDS and isinstance(value, (str, int, float)):
            found[field] = str(value)
    return found
