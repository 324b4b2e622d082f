"""The folder that drops arrive in, and the folders beside it that they move on to; all moves are renames.

inbox/           what arrives: folders, or single clips
processing/      <key>/media: what a run reads
done/            <name>-<digest>/media
rejected/        <name>-<digest>/media beside reason.json
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.drops.concept_file import FILE_NAME, MEDIA, READY_MARK
from pipeline_lib.errors import InputError
from pipeline_lib.media.collect import collect
from pipeline_lib.media.header import read_header
from pipeline_lib.media.limits import DEFAULT_LIMITS
from pipeline_lib.media.survey import survey
from pipeline_lib.storage import write_atomic
from pipeline_lib.storage.files import sha256, sync

_PARTIAL = (".part", ".partial", ".tmp", ".crdownload", ".filepart", ".swp")
REASON_FILE = "reason.json"
_MOST_FILES = 500
_MOST = 0.9  # of the length that a header tells
_SHOWN, _DIGEST = 12, 64  # characters of a digest: in folder names, in all
_NAME_BYTES = 120  # of a drop's name in folder names: with what is added it stays below what file systems take

Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Drop:
    """Something in the inbox that is whole.

    Attributes:
        name: of the file or folder.
        path: where it lies.
        problem: why it cannot be used, if so.
    """

    name: str
    path: Path
    problem: str = ""


@dataclass(frozen=True)
class _Verdict:
    """What opening a drop's media told: a reason why they cannot be used, and whether they may be half-written."""

    problem: str
    unfinished: bool


@dataclass
class _Seen:
    fingerprint: Fingerprint
    since: float
    verdict: _Verdict | None = None


class FolderInbox:
    """An inbox on a file system.

    A drop is whole when it holds a file `_READY`, or when nothing about it has changed for `settle_seconds` and its
    media decode to their end. Media that do not may be half-written still: only after `patience_seconds` without a
    change are they taken as they are.

    Args:
        root: holds the four folders; they are made.
        settle_seconds: see above.
        patience_seconds: see above.
    """

    def __init__(self, root: Path, settle_seconds: float = 2.0, patience_seconds: float = 120.0) -> None:
        self.root = root
        self._settle, self._patience = settle_seconds, patience_seconds
        self._seen: dict[str, _Seen] = {}
        for folder in (self.inbox, self.processing, self.done, self.rejected):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def inbox(self) -> Path:
        """Where drops arrive."""
        return self.root / "inbox"

    @property
    def processing(self) -> Path:
        """Drops that have been claimed."""
        return self.root / "processing"

    @property
    def done(self) -> Path:
        """Drops whose runs ended well."""
        return self.root / "done"

    @property
    def rejected(self) -> Path:
        """Drops that cannot be used."""
        return self.root / "rejected"

    def scan(self) -> list[Drop]:
        """Drops that are whole now, the oldest first; those that are not are looked at again in the next scan."""
        here = [path for path in self.inbox.iterdir() if not _hidden(path)]
        now = time.monotonic()
        self._seen = {name: seen for name, seen in self._seen.items() if any(path.name == name for path in here)}
        whole = [drop for path in here if (drop := self._look(path, now)) is not None]
        return sorted(whole, key=lambda drop: (drop.path.lstat().st_mtime_ns, drop.name))

    def _look(self, path: Path, now: float) -> Drop | None:
        name = _readable(path.name)
        try:
            files = _files(path)
            fingerprint = tuple((str(item), (facts := item.lstat()).st_size, facts.st_mtime_ns) for item in files)
        except FileNotFoundError:  # it changes while we look, or a copy is under way
            return None
        except PermissionError:
            return Drop(name, path, f"{name} may not be read by the service")
        except InputError as error:
            return Drop(name, path, str(error))
        marked = path.is_dir() and (path / READY_MARK).exists()
        seen = self._seen.get(path.name)
        if seen is None or seen.fingerprint != fingerprint:
            seen = self._seen[path.name] = _Seen(fingerprint, now)
        if not marked and now - seen.since < self._settle:
            return None
        seen.verdict = seen.verdict or _opened(path)
        if seen.verdict.unfinished and not marked and now - seen.since < self._patience:
            return None
        return Drop(name, path, seen.verdict.problem)

    def take(self, drop: Drop, key: str) -> Path:
        """Moves a claimed drop to where its run reads it; does nothing where that was done before.

        Args:
            drop: in the inbox.
            key: of the claim.

        Returns:
            The folder of its media.
        """
        place = self.place(key)
        if place.is_dir():
            return place
        place.parent.mkdir(parents=True, exist_ok=True)
        if drop.path.is_dir():
            drop.path.rename(place)
        else:
            nursery = place.with_name(f".{MEDIA}")
            nursery.mkdir(exist_ok=True)
            drop.path.rename(nursery / drop.name)
            nursery.rename(place)
        sync(self.inbox, place.parent, self.processing)
        return place

    def taken(self, key: str) -> bool:
        """Whether a claimed drop is where its run reads it; ends a clip's move that a death broke off."""
        place = self.place(key)
        nursery = place.with_name(f".{MEDIA}")
        if not place.exists() and nursery.is_dir() and any(nursery.iterdir()):
            nursery.rename(place)
            sync(place.parent)
        return place.exists()

    def place(self, key: str) -> Path:
        """The folder of a claimed drop's media."""
        return self.processing / key / MEDIA

    def finish(self, key: str, name: str) -> None:
        """Moves a drop whose run ended well."""
        self._leave(key, self.done / _labelled(name, key))

    def reject(self, key: str, name: str, reason: str) -> None:
        """Moves a claimed drop that cannot be used, with the reason beside its files."""
        if (self.processing / key).exists():  # else that was done before a death
            _note(self.processing / key, name, reason)
        self._leave(key, self.rejected / _labelled(name, key))

    def reason(self, key: str, name: str) -> str:
        """Why a claimed drop was rejected; empty: it was not."""
        path = self.rejected / _labelled(name, key) / REASON_FILE
        return str(json.loads(path.read_text(encoding="utf-8"))["reason"]) if path.exists() else ""

    def refuse(self, drop: Drop, reason: str, target: Path | None = None) -> Path:
        """Moves something straight out of the inbox, with the reason beside it.

        Args:
            drop: in the inbox.
            reason: why.
            target: a folder; None: below `rejected`.

        Returns:
            The folder that it went to.
        """
        base = target or self.rejected / drop.name
        base = base.with_name(_short(base.name))
        free = next(
            path for number in range(1_000_000) if not (path := base.with_name(f"{base.name}-{number}")).exists()
        )
        free.mkdir(parents=True)
        drop.path.rename(free / MEDIA if drop.path.is_dir() else free / drop.name)
        _note(free, drop.name, reason)
        sync(self.inbox, free.parent)
        return free

    def _leave(self, key: str, target: Path) -> None:
        source = self.processing / key
        if source.exists() and not target.exists():
            source.rename(target)
            sync(self.processing, target.parent)


def digest_of(path: Path) -> str:
    """SHA-256 over the names and contents of a drop's files, the ready mark aside.

    Args:
        path: a file, or a folder.

    Returns:
        Hexadecimal.
    """
    found = hashlib.sha256()
    for item in _files(path):
        name = item.relative_to(path).as_posix() if path.is_dir() else item.name
        if name != READY_MARK:
            found.update(f"{name}\0{sha256(item)}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()


def _files(path: Path) -> list[Path]:
    """All files of a drop, sorted; links and what is neither file nor folder are refused."""
    if path.is_symlink():
        raise InputError(f"{_readable(path.name)} is a link", fix="drop the files themselves")
    if path.name != _readable(path.name):
        raise InputError(f"{_readable(path.name)}: the name is not UTF-8", fix="give it another name")
    if path.is_file():
        return [path]
    found = []
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            item = Path(folder) / name
            if name != _readable(name):
                raise InputError(f"{path.name}: a name in it is not UTF-8: {_readable(name)}")
            if item.is_symlink() or not (item.is_dir() or item.is_file()):
                raise InputError(f"{path.name} holds a link or a device: {name}", fix="drop the files themselves")
        found += [Path(folder) / name for name in files]
        if len(found) > _MOST_FILES:
            raise InputError(f"{path.name} holds too many files", expected=f"at most {_MOST_FILES}")
    if any(item.name.lower().endswith(_PARTIAL) for item in found):
        raise FileNotFoundError(f"{path} is being copied")
    return sorted(found)


def _opened(path: Path) -> _Verdict:
    try:
        unfinished = False
        for clip in collect(path).clips:
            header = read_header(clip, DEFAULT_LIMITS)
            seen = survey(clip, header, DEFAULT_LIMITS)
            unfinished |= bool(seen.damage) or seen.seconds < _MOST * header.seconds
    except InputError as error:
        return _Verdict(str(error), unfinished=True)
    return _Verdict("", unfinished)


def _hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower().endswith(_PARTIAL)


def _labelled(name: str, key: str) -> str:
    """The name with the beginning of the digest and, from the second attempt on, its number."""
    return f"{_short(Path(name).stem)}-{key[:_SHOWN]}{key[_DIGEST:]}"


def _short(name: str) -> str:
    return name.encode()[:_NAME_BYTES].decode(errors="ignore")


def _readable(name: str) -> str:
    """A name with a mark in the place of bytes that are no text, which databases and JSON do not take."""
    return os.fsencode(name).decode(errors="replace")


def _note(folder: Path, name: str, reason: str) -> None:
    told = {"drop": name, "reason": reason, "schema": f"see the schema of {FILE_NAME}: mannerism schema"}
    write_atomic(folder / REASON_FILE, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
