"""Name and digest of a file from a stranger."""

from __future__ import annotations

import hashlib
from pathlib import Path

_MAX_NAME = 120


def file_digest(path: Path) -> str:
    """SHA-256 of the file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def clean_name(path: Path) -> str:
    """The file's name with nothing in it that could harm a log line, a page or a path."""
    kept = "".join(c if c.isalnum() or c in "._- ()" else "_" for c in path.name)
    return kept.strip(". ")[:_MAX_NAME] or "unnamed"
