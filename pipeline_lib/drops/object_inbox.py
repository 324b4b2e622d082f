"""An inbox in an object store.

There, `inbox/` holds what arrives, until its run has ended; it goes to `done/` or `rejected/` then. Here, `arriving/`
and `processing/` hold what was downloaded, `moves/` a note of every move under way.

A store renames nothing, so a drop leaves the inbox object by object. Which objects are ours is written down before the
first one goes, by name and tag: what is left of a drop is never taken for another one, and what somebody puts there
meanwhile under the same name stays, but for the moment between the last listing and the deletion.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

from pipeline_lib.drops.concept_file import MEDIA, READY_MARK
from pipeline_lib.drops.drop import (
    MOST_FILES,
    REASON_FILE,
    Drop,
    Verdict,
    hidden,
    labelled,
    opened,
    partial,
    reason_text,
    short,
)
from pipeline_lib.drops.inbox import Inbox, InboxAwayError, note_name
from pipeline_lib.drops.object_store import ChangedError, ObjectStore, StoredFile
from pipeline_lib.errors import ResourceError
from pipeline_lib.media.limits import DEFAULT_LIMITS
from pipeline_lib.storage import write_atomic
from pipeline_lib.storage.files import sync

INBOX = "inbox"
MOST_BYTES = 4 * DEFAULT_LIMITS.file_bytes  # of one drop
_ORIGIN_FILE = "origin.json"
_RESERVE = 512 * 2**20  # bytes of the disk that downloads leave to runs
_LONGEST_NAME = 255  # bytes of a file's name, on this machine


class _Origin(BaseModel):
    """Which objects are a drop: keys below the inbox, the tags that they had, and their names in the drop."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    objects: tuple[tuple[str, str, str], ...]

    @property
    def token(self) -> str:
        """Names this very state of the drop."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:32]


class _Move(BaseModel):
    """A move under way: from the inbox to `target`, with a reason where there is one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: _Origin
    target: str
    reason: str
    local: str


@dataclass(frozen=True)
class _Arrival:
    """What a scan found under one name."""

    origin: _Origin
    files: tuple[tuple[str, StoredFile], ...]


class ObjectInbox(Inbox):
    """`<store>/inbox`: prefixes, or single objects.

    Args:
        store: holds inbox, done and rejected.
        root: of this machine: holds what was downloaded, and the local copy of what was learned from.
        settle_seconds: see :class:`pipeline_lib.drops.settling.Settling`.
        patience_seconds: likewise.
    """

    def __init__(
        self, store: ObjectStore, root: Path, settle_seconds: float = 2.0, patience_seconds: float = 120.0
    ) -> None:
        super().__init__(root, settle_seconds, patience_seconds)
        self.store = store
        self._arrivals: dict[str, _Arrival] = {}
        shutil.rmtree(self._arriving, ignore_errors=True)  # perhaps half of it
        for folder in (self._arriving, self._moves):
            folder.mkdir(exist_ok=True)

    @property
    def _arriving(self) -> Path:
        return self.root / "arriving"

    @property
    def _moves(self) -> Path:
        return self.root / "moves"

    def mend(self) -> None:
        """See the contract."""
        errors = []
        for note in sorted(self._moves.glob("*.json")):
            try:
                self._carry(note)
            except InboxAwayError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def scan(self) -> list[Drop]:
        """See the contract."""
        found = self._group(self.store.listing(INBOX))
        self._settling.keep(found.keys())
        self._tidy({arrival.origin.token for arrival in found.values()})
        self._arrivals = found
        whole = self._each(found.values(), self._look)
        ages = {name: max(file.modified for _, file in arrival.files) for name, arrival in found.items()}
        return sorted(whole, key=lambda drop: (ages[drop.name], drop.name))

    def take(self, drop: Drop, key: str) -> None:
        """See the contract; the objects stay in the inbox, and are known as ours by the note beside the media."""
        if not self.taken(key):
            folder, place = drop.path.parent, self.processing / key
            note_name(folder, drop.name)
            shutil.rmtree(place, ignore_errors=True)  # without media: nothing
            folder.rename(place)
            sync(self._arriving, self.processing)
        self._link(key, self.place(key))

    def give_back(self, key: str, name: str) -> None:  # noqa: ARG002 - the contract's
        """See the contract; the objects never left the inbox."""
        self.input(key).unlink(missing_ok=True)
        shutil.rmtree(self.processing / key)

    def refuse(self, drop: Drop, reason: str, *, again: bool = False) -> None:
        """See the contract."""
        origin = self._arrivals[drop.name].origin
        target = f"done/{short(drop.name)}-again" if again else f"rejected/{short(drop.name)}"
        self._move(origin, f"{target}-{origin.token[:8]}", reason, self._arriving / origin.token / MEDIA)
        shutil.rmtree(self._arriving / origin.token, ignore_errors=True)

    def finish(self, key: str, name: str) -> None:
        """See the contract; in the store first."""
        self._move_claimed(key, f"done/{labelled(name, key)}", "")
        super().finish(key, name)

    def reject(self, key: str, name: str, reason: str) -> None:
        """See the contract; in the store first."""
        self._move_claimed(key, f"rejected/{labelled(name, key)}", reason)
        super().reject(key, name, reason)

    def restore(self, key: str, name: str) -> None:
        """See the contract; in the store first, where all is copied before anything is deleted."""
        label = labelled(name, key)
        here = [file.name for file in self.store.listing(f"rejected/{label}")]
        for inner in here:
            if inner != REASON_FILE:
                self.store.copy(f"rejected/{label}/{inner}", f"done/{label}/{inner}")
        for inner in here:
            self.store.delete(f"rejected/{label}/{inner}")
        super().restore(key, name)

    def _group(self, files: list[StoredFile]) -> dict[str, _Arrival]:
        """What is in the inbox by drop, but what was claimed or is leaving; markers of empty folders are no files."""
        ours = {(key, tag) for origin in self._known() for key, tag, _ in origin.objects}
        groups: dict[str, list[tuple[str, StoredFile]]] = {}
        for file in files:
            top, _, rest = file.name.partition("/")
            if top and not hidden(top) and not file.name.endswith("/") and (file.name, file.tag) not in ours:
                groups.setdefault(top, []).append((rest or top, file))
        return {
            name: _Arrival(
                _Origin(name=name, objects=tuple((f.name, f.tag, inner) for inner, f in group)), tuple(group)
            )
            for name, group in groups.items()
        }

    def _known(self) -> Iterator[_Origin]:
        for note in self.processing.glob(f"*/{_ORIGIN_FILE}"):
            yield _Origin.model_validate_json(note.read_bytes())
        for note in self._moves.glob("*.json"):
            yield _Move.model_validate_json(note.read_bytes()).origin

    def _tidy(self, tokens: set[str]) -> None:
        """Takes away what was downloaded of drops that have changed or gone since."""
        for folder in self._arriving.iterdir():
            if folder.name not in tokens:
                shutil.rmtree(folder)

    def _look(self, arrival: _Arrival) -> Drop | None:
        origin, names = arrival.origin, [inner for inner, _ in arrival.files]
        media = self._arriving / origin.token / MEDIA
        if any(partial(name) for name in names):
            return None
        if problem := _problem(arrival):
            return Drop(origin.name, media, problem)
        marked = any(inner == READY_MARK != file.name for inner, file in arrival.files)
        try:
            verdict = self._settling.look(origin.name, origin, marked, lambda: self._arrive(arrival))
        except ChangedError:  # the next listing tells
            return None
        return None if verdict is None else Drop(origin.name, media, verdict.problem)

    def _arrive(self, arrival: _Arrival) -> Verdict:
        """Downloads a drop to a hidden folder, which is renamed when all of it is there."""
        origin = arrival.origin
        folder, nursery = self._arriving / origin.token, self._arriving / f".{origin.token}"
        if not folder.exists():
            self._check_room(sum(file.size for _, file in arrival.files), origin.name)
            shutil.rmtree(nursery, ignore_errors=True)
            for inner, file in arrival.files:
                self.store.fetch(f"{INBOX}/{file.name}", file, nursery / MEDIA / inner)
            write_atomic(nursery / _ORIGIN_FILE, origin.model_dump_json())
            nursery.rename(folder)
        return opened(folder / MEDIA, origin.name)

    def _check_room(self, size: int, name: str) -> None:
        """Before a byte is fetched: a disk that fills up half-way would have it fetched again and again."""
        free = shutil.disk_usage(self.root).free
        if size + _RESERVE > free:
            raise ResourceError(
                f"{name} needs {size // 2**20} MiB in {self.root}, where {free // 2**20} MiB are free and "
                f"{_RESERVE // 2**20} MiB stay free; make room there"
            )

    def _move_claimed(self, key: str, target: str, reason: str) -> None:
        note = self.processing / key / _ORIGIN_FILE
        if note.exists():  # else that was done before a death
            self._move(_Origin.model_validate_json(note.read_bytes()), target, reason, self.place(key))

    def _move(self, origin: _Origin, target: str, reason: str, local: Path) -> None:
        move = _Move(origin=origin, target=target, reason=reason, local=str(local))
        note = self._moves / f"{origin.token}.json"
        write_atomic(note, move.model_dump_json())
        self._carry(note)

    def _carry(self, note: Path) -> None:
        """Copies all, gives the reason, and only then deletes; may be repeated from any point."""
        move = _Move.model_validate_json(note.read_bytes())
        tags, names = self._tags(), [inner for _, _, inner in move.origin.objects]
        for key, tag, inner in move.origin.objects:
            plain = _safe(inner) and names.count(inner) == 1
            target = f"{move.target}/{MEDIA}/{inner if plain else quote(key, safe='')}"
            copied = tags.get(key) == tag and self.store.copy(f"{INBOX}/{key}", target)
            local = Path(move.local) / inner
            if not copied and local.is_file() and not self.store.has(target):
                self.store.put(local, target)  # somebody took it out of the inbox; it was learned from all the same
        if move.reason:
            self.store.write(f"{move.target}/{REASON_FILE}", reason_text(move.origin.name, move.reason))
        tags = self._tags()
        for key, tag, _ in move.origin.objects:
            if tags.get(key) == tag:
                self.store.delete(f"{INBOX}/{key}")
        note.unlink()

    def _tags(self) -> dict[str, str]:
        return {file.name: file.tag for file in self.store.listing(INBOX)}


def _problem(arrival: _Arrival) -> str:
    """Why a drop is not even downloaded; empty: it is."""
    name, sizes = arrival.origin.name, [file.size for _, file in arrival.files]
    if len(sizes) > MOST_FILES:
        return f"{name} holds too many files; got {len(sizes)}; expected at most {MOST_FILES}"
    if max(sizes) > DEFAULT_LIMITS.file_bytes or sum(sizes) > MOST_BYTES:
        most = f"{DEFAULT_LIMITS.file_bytes // 2**30} GiB a file, {MOST_BYTES // 2**30} GiB in all"
        return f"{name} is too large; got {sum(sizes):,} bytes; expected at most {most}"
    names = [inner for inner, _ in arrival.files]
    folders = {str(parent) for inner in names for parent in PurePosixPath(inner).parents}
    odd = [inner for inner in names if not _safe(inner)]
    # A store may hold `a` and `a/b`, and `name` beside `name/name`; a disk may not.
    odd += [inner for inner in names if inner in folders or names.count(inner) > 1]
    return f"{name} holds a name that is no file's name here: {odd[0]!r}" if odd else ""


def _safe(inner: str) -> bool:
    """Whether a stranger's key is a path inside the drop's folder, as it is written."""
    parts = inner.split("/")
    fits = all(part not in ("", ".", "..") and len(part.encode(errors="replace")) <= _LONGEST_NAME for part in parts)
    return fits and "\0" not in inner and "\\" not in inner and str(PurePosixPath(inner)) == inner
