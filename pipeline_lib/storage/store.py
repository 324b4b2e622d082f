"""The artifact store: content-addressed folders, served only while every byte is as it was written.

::

    <root>/artifacts/<kind>/<key>/    files and manifest.json; there from one rename to the next
    <root>/tmp/<kind>/<key>/          being written, or being deleted
    <root>/work/<kind>/<key>/         scratch that survives kills (checkpoints); removed once the artifact stands
    <root>/quarantine/<kind>/…        what did not match its manifest, with reason.json
    <root>/locks/<kind>/<key>.lock    held by the one process that builds this key; freed by its death

A *key* says what an artifact is made from, a *digest* what it holds.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import ValidationError

from pipeline_lib.errors import ArtifactError
from pipeline_lib.records import ArtifactRef, Record
from pipeline_lib.storage.files import CHECKSUMS, disk_errors, sync, write_atomic
from pipeline_lib.storage.manifest import (
    MANIFEST,
    FileEntry,
    Manifest,
    digest_of,
    files_digest,
    now,
    regular_files,
    synced_entries,
)

log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


Place = Literal["artifacts", "work", "tmp", "quarantine"]
PLACES: tuple[Place, ...] = ("artifacts", "work", "tmp", "quarantine")


@dataclass(frozen=True)
class Artifact:
    """A verified artifact: its reference, its folder, its manifest."""

    ref: ArtifactRef
    folder: Path
    manifest: Manifest


class Pruned(Record):
    """One folder that `prune` removed, or would remove."""

    place: Place
    kind: str
    key: str
    size: int


class ArtifactStore:
    """Content-addressed folders below one root; safe for several processes and for kills at any moment.

    Args:
        root: the folder that holds everything; made when missing.
        on_wait: called every two seconds with a sentence while another process makes what :meth:`build` was
            asked for; raising from it (`StopRequested`) gives up. May be set anew for each request.
    """

    def __init__(self, root: Path, *, on_wait: Callable[[str], None] = log.info) -> None:
        self.root = root.resolve()
        self.on_wait = on_wait
        self._made_from: dict[str, dict[str, Any]] = {}

    def key(
        self, kind: str, inputs: Sequence[ArtifactRef], settings: Any, version: int, extra: Mapping[str, str]
    ) -> str:
        """What an artifact is made from, as a sha256: equal ingredients give an equal key.

        The store remembers the ingredients of the keys it made and writes them into the manifest.

        Args:
            kind: the artifact's kind, e.g. "latents".
            inputs: the artifacts it is made from, in order; only what they hold counts.
            settings: whatever else it depends on; plain JSON values, finite numbers.
            version: the stage's `STAGE_VERSION`.
            extra: base digest, dtype, device kind, seed, ….

        Returns:
            64 hexadecimal digits.
        """
        parts = {"kind": kind, "settings": settings, "version": version, "extra": dict(extra)}
        key = digest_of({**parts, "inputs": [ref.digest for ref in inputs]})
        self._made_from[key] = {**parts, "inputs": tuple(inputs)}
        return key

    def find(self, kind: str, key: str) -> Artifact | None:
        """The artifact, if it stands and all of its files match the manifest; else None.

        A corrupt one is moved to the quarantine and reported. Checksums are computed once per process
        and file; sizes and times are looked at every time.
        """
        try:
            return self._verified(kind, key)
        except ArtifactError:
            try:
                with self._lock(kind, key).acquire(timeout=0):
                    return self._verified_or_set_aside(kind, key)
            except Timeout:
                return None  # whoever holds the lock is about to replace it

    def build(
        self, kind: str, key: str, make: Callable[[Path], None], notes: Mapping[str, Any] | None = None
    ) -> Artifact:
        """The artifact, found or made; of several callers one makes it and the others wait and find it.

        Args:
            kind: the artifact's kind.
            key: from :meth:`key`.
            make: writes the artifact's files into the folder it is given. When it raises, nothing remains.
            notes: JSON facts about the making, kept in the manifest; they count neither for key nor digest.

        Returns:
            The verified artifact.

        Raises:
            ResourceError: the disk is full; the folder is named, nothing is left half-written.
            ArtifactError: `make` wrote nothing, or a link, or `manifest.json`.
        """
        found = self.find(kind, key)
        if found is not None:
            return found
        with disk_errors(self.root, f"{kind} {key}"), self._held(kind, key):
            return self._verified_or_set_aside(kind, key) or self._make(kind, key, make, notes or {})

    def get(self, ref: ArtifactRef) -> Artifact:
        """The verified artifact behind a reference.

        Args:
            ref: from an earlier :meth:`build`, perhaps of another process.

        Returns:
            The artifact, just verified.

        Raises:
            ArtifactError: it is gone, was corrupt, or holds something else now.
        """
        artifact = self.find(ref.kind, ref.key)
        if artifact is None or artifact.ref.digest != ref.digest:
            state = "missing or corrupt" if artifact is None else "not the one that was referred to"
            raise ArtifactError(f"{ref.kind} {ref.key} in {self.root} is {state}; run again to rebuild it")
        return artifact

    def folder(self, ref: ArtifactRef) -> Path:
        """The folder of :meth:`get`."""
        return self.get(ref).folder

    def work_folder(self, kind: str, key: str) -> Path:
        """Scratch for one key that survives kills; removed once the artifact stands. Use it inside `make`."""
        folder = self._place("work", kind, key)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def manifests(self) -> Iterator[Manifest]:
        """All manifests that can be read, unverified, in order of kind and key."""
        for path in sorted(self.root.glob(f"artifacts/*/*/{MANIFEST}")):
            try:
                yield Manifest.model_validate_json(path.read_bytes())
            except (ValidationError, OSError) as error:
                log.warning("%s cannot be read: %s", path, error)

    def prune(self, older_than: timedelta, *, keep_kinds: Collection[str] = (), dry_run: bool = False) -> list[Pruned]:
        """Removes what nobody used for a while: artifacts, checkpoints, leftovers, quarantine.

        Args:
            older_than: age since the last use; what is being built now always stays.
            keep_kinds: kinds whose artifacts stay whatever their age; their checkpoints and leftovers do not.
            dry_run: only tell.

        Returns:
            What was, or would be, removed.
        """
        newest, pruned = time.time() - older_than.total_seconds(), []
        for place in PLACES:
            for folder in sorted(self.root.glob(f"{place}/*/*")):
                if place == "artifacts" and folder.parent.name in keep_kinds:
                    continue
                with (
                    suppress(Timeout, FileNotFoundError),
                    self._lock(folder.parent.name, _key_of(folder)).acquire(timeout=0),
                ):
                    size, used = _size_and_use(folder)
                    if used > newest:
                        continue
                    pruned.append(Pruned(place=place, kind=folder.parent.name, key=_key_of(folder), size=size))
                    if not dry_run:
                        self._remove(folder)
        return pruned

    def _place(self, place: str, kind: str, key: str) -> Path:
        for name in (kind, key):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} cannot name an artifact: letters, digits and ._:- only")
        return self.root / place / kind / key

    def _lock(self, kind: str, key: str) -> FileLock:
        path = self._place("locks", kind, key).with_name(f"{key}.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path)

    @contextmanager
    def _held(self, kind: str, key: str) -> Iterator[None]:
        lock, timeout = self._lock(kind, key), 0.0
        while True:
            try:
                lock.acquire(timeout=timeout)
                break
            except Timeout:
                timeout = _LOOK_SECONDS
                self.on_wait(f"waiting for another process that makes {kind} {key[:12]}")
        try:
            yield
        finally:
            lock.release()

    def _verified(self, kind: str, key: str) -> Artifact | None:
        folder = self._place("artifacts", kind, key)
        if not folder.exists():
            return None
        try:
            manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
            stats = regular_files(folder)
            for entry in manifest.files:
                if entry.path not in stats or stats[entry.path].st_size != entry.size:
                    raise ArtifactError(f"{folder / entry.path} is missing or has another size")
                if CHECKSUMS.of(folder / entry.path) != entry.sha256:
                    raise ArtifactError(f"{folder / entry.path} does not match its checksum")
        except (OSError, ValidationError) as error:
            raise ArtifactError(f"{folder} cannot be read: {error}") from error
        if (manifest.kind, manifest.key, manifest.digest) != (kind, key, files_digest(manifest.files)):
            raise ArtifactError(f"{folder / MANIFEST} belongs to another artifact")
        _touch(folder)
        return Artifact(ArtifactRef(kind=kind, key=key, digest=manifest.digest), folder, manifest)

    def _verified_or_set_aside(self, kind: str, key: str) -> Artifact | None:
        try:
            return self._verified(kind, key)
        except ArtifactError as error:
            aside = self._place("quarantine", kind, key).with_name(f"{key}@{secrets.token_hex(4)}")
            aside.parent.mkdir(parents=True, exist_ok=True)
            self._place("artifacts", kind, key).rename(aside)
            log.warning("%s; moved to %s, it will be made again", error, aside)
            write_atomic(aside / "reason.json", json.dumps({"reason": str(error), "found": now()}))
            return None

    def _make(self, kind: str, key: str, make: Callable[[Path], None], notes: Mapping[str, Any]) -> Artifact:
        scratch, final = self._place("tmp", kind, key), self._place("artifacts", kind, key)
        shutil.rmtree(scratch, ignore_errors=True)  # of a killed process: the lock is ours
        try:
            scratch.mkdir(parents=True)
            final.parent.mkdir(parents=True, exist_ok=True)
            make(scratch)
            files = self._seal(scratch, kind, key, notes)
            scratch.rename(final)
            sync(final.parent, final.parent.parent, scratch.parent)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        for entry in files:  # just hashed
            path = final / entry.path
            CHECKSUMS.learn(path, entry.sha256, path.lstat(), time.time_ns())
        shutil.rmtree(self._place("work", kind, key), ignore_errors=True)
        artifact = self._verified(kind, key)
        assert artifact is not None
        return artifact

    def _seal(self, folder: Path, kind: str, key: str, notes: Mapping[str, Any]) -> tuple[FileEntry, ...]:
        files = synced_entries(folder)
        manifest = Manifest(
            **{**self._made_from.get(key, {}), "kind": kind},
            key=key,
            digest=files_digest(files),
            created=now(),
            files=files,
            notes=dict(notes),
        )
        write_atomic(folder / MANIFEST, manifest.model_dump_json(indent=1))
        return files

    def _remove(self, folder: Path) -> None:
        # Renamed first: a half-deleted artifact must not be found.
        grave = self.root / "tmp" / folder.parent.name / f"{_key_of(folder)}@{secrets.token_hex(4)}"
        grave.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(grave)
        shutil.rmtree(grave)


def _key_of(folder: Path) -> str:
    # Graves and quarantined folders carry a random ending.
    return folder.name.partition("@")[0]


def _touch(folder: Path) -> None:
    try:
        os.utime(folder)  # the last use, for prune
    except OSError:
        log.debug("%s is served from a read-only store", folder)


def _size_and_use(folder: Path) -> tuple[int, float]:
    stats = [path.lstat() for path in (folder, *folder.rglob("*"))]
    return sum(facts.st_size for facts in stats), max(facts.st_mtime for facts in stats)
