"""What `manifest.json` says: the files of an artifact and what it was made from."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from pipeline_lib.errors import ArtifactError
from pipeline_lib.records import ArtifactRef, Record
from pipeline_lib.storage.files import sha256, sync

MANIFEST = "manifest.json"


class FileEntry(Record):
    """One file of an artifact: its path below the artifact's folder, its checksum, its size in bytes."""

    path: str
    sha256: str
    size: int


class Manifest(Record):
    """`manifest.json`: what an artifact holds and what it was made from."""

    schema_version: int = 1
    kind: str
    key: str
    digest: str
    created: str
    files: tuple[FileEntry, ...]
    inputs: tuple[ArtifactRef, ...] = ()
    settings: Any = None
    version: int = 0
    extra: dict[str, str] = Field(default_factory=dict)
    notes: dict[str, Any] = Field(default_factory=dict)


def digest_of(value: Any) -> str:
    """The sha256 of a JSON value, whatever the order of its names; NaN and infinity are a ValueError."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def files_digest(files: Sequence[FileEntry]) -> str:
    """What an artifact holds, as one sha256."""
    return digest_of(sorted((entry.path, entry.size, entry.sha256) for entry in files))


def regular_files(folder: Path) -> dict[str, os.stat_result]:
    """All files below a folder by their relative path; a link or a device is an ArtifactError."""
    found: dict[str, os.stat_result] = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            facts = path.lstat()
            if stat.S_ISREG(facts.st_mode):
                found[path.relative_to(folder).as_posix()] = facts
            elif not stat.S_ISDIR(facts.st_mode):
                raise ArtifactError(f"{path} is neither a file nor a folder; an artifact holds no links")
    return found


def synced_entries(folder: Path) -> tuple[FileEntry, ...]:
    """All files of a folder that is about to become an artifact, on the disk for good, with their checksums."""
    stats = regular_files(folder)
    if not stats or MANIFEST in stats:
        raise ArtifactError(f"{folder}: an artifact holds at least one file, and {MANIFEST} is the store's own")
    paths = {name: folder / name for name in sorted(stats)}
    with ThreadPoolExecutor(max_workers=4) as pool:  # the disk writes while the processor hashes
        synced = [pool.submit(sync, path) for path in paths.values()]
        checksums = [sha256(path) for path in paths.values()]
        for done in synced:
            done.result()
    sync(*(Path(parent) for parent, _, _ in os.walk(folder)))
    return tuple(
        FileEntry(path=name, sha256=checksum, size=stats[name].st_size)
        for name, checksum in zip(paths, checksums, strict=True)
    )


def now() -> str:
    """The time, to the second, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
