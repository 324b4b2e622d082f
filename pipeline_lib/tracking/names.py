"""Names from users' files, made harmless before they become run, model, metric or artifact names."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

_MAX_NAME = 100
_MAX_KEY = 250
_MAX_PARAM = 6000
_MAX_TAG = 8000


def run_name(text: str) -> str:
    """A run's name: any letters, no control or formatting characters, at most 100."""
    plain = "".join(mark for mark in unicodedata.normalize("NFKC", text) if mark.isprintable())
    return plain.strip()[:_MAX_NAME].strip() or "unnamed"


def model_name(text: str) -> str:
    """A model's name: letters of any script, digits, `_`, `-` and single spaces."""
    return re.sub(r"[^\w-]+", " ", unicodedata.normalize("NFKC", text)).strip()[:_MAX_NAME].strip() or "unnamed"


def key(text: str) -> str:
    """A metric's, parameter's, stage's or image's key: ASCII letters, digits, `_-. ` and `/` between parts.

    Where letters of other scripts are lost, a short digest keeps different texts apart.
    """
    marks = unicodedata.normalize("NFKD", text)
    plain = "".join(mark for mark in marks if not unicodedata.combining(mark))
    parts = [_key_part(part) for part in plain.split("/")]
    kept = "/".join(part for part in parts if part)[: _MAX_KEY - 7].rstrip("/ .-")
    if all(mark.isascii() for mark in plain if mark.isalnum()):
        return kept or "unnamed"
    return f"{kept}-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:6]}".lstrip("-")


def flat_params(params: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings as `a.b.0` → text, cut to what MLflow takes."""
    return {key(name): str(value)[:_MAX_PARAM] for name, value in _leaves("", params)}


def clean_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags cut to what MLflow takes."""
    return {key(name): value[:_MAX_TAG] for name, value in tags.items()}


def _key_part(text: str) -> str:
    return re.sub(r"-[- ]+", "-", re.sub(r"[^A-Za-z0-9_\-. ]+", "-", text)).strip(" .-")


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(f"{prefix}.{name}" if prefix else str(name), inner)
    elif isinstance(value, (list, tuple)) and any(isinstance(inner, (Mapping, list, tuple)) for inner in value):
        for index, inner in enumerate(value):
            yield from _leaves(f"{prefix}.{index}", inner)
    else:
        yield prefix, value
