"""What every inbox does: finds drops that are whole, and keeps those that were claimed until their runs have ended.

processing/      <key>/media: what was claimed, beside drop.json
done/            <name>-<digest>/media
rejected/        <name>-<digest>/media beside reason.json
inputs/          <key>: a link to the media wherever they lie: what a run reads, today and when it is tried again
"""

from __future__ import annotations

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from pipeline_lib.drops.concept_file import MEDIA
from pipeline_lib.drops.drop import REASON_FILE, Drop, labelled, reason_text
from pipeline_lib.drops.settling import Settling
from pipeline_lib.errors import ResourceError
from pipeline_lib.storage import write_atomic
from pipeline_lib.storage.files import sync

T = TypeVar("T")
DROP_FILE = "drop.json"
_KEY = re.compile(r"[0-9a-f]{64}(-\d+)?")


class InboxAwayError(ConnectionError):
    """The inbox cannot be used now; any act on one may raise it, and may be tried again."""


class Inbox(ABC):
    """Drops on their way; every act may be repeated after a death, and does then what is left of it.

    Args:
        root: of this machine; holds the folders of claimed drops, which are made.
        settle_seconds: see :class:`pipeline_lib.drops.settling.Settling`.
        patience_seconds: likewise.

    Attributes:
        trouble: what kept the last scan from looking at one of the drops; None: nothing.
    """

    def __init__(self, root: Path, settle_seconds: float = 2.0, patience_seconds: float = 120.0) -> None:
        self.root = root
        self.trouble: Exception | None = None
        self._settling = Settling(settle_seconds, patience_seconds)
        for folder in (self.processing, self.done, self.rejected, self.inputs):
            folder.mkdir(parents=True, exist_ok=True)
        for link in self.inputs.iterdir():
            if link.is_symlink() and not link.exists():  # somebody made room
                link.unlink()

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

    @property
    def inputs(self) -> Path:
        """Links to the media of claimed drops."""
        return self.root / "inputs"

    @abstractmethod
    def scan(self) -> list[Drop]:
        """Drops that are whole now, the oldest first; those that are not are looked at again in the next scan.

        Raises :class:`InboxAwayError`; what keeps one drop from being looked at is left in `trouble`.
        """

    def _each(self, items: Iterable[T], look: Callable[[T], Drop | None]) -> list[Drop]:
        """Looks at each: one that cannot be read now keeps no other waiting."""
        self.trouble = None
        whole: list[Drop] = []
        for item in items:
            try:
                drop = look(item)
            except (InboxAwayError, ResourceError, OSError) as error:
                self.trouble = error
            else:
                whole += [] if drop is None else [drop]
        return whole

    @abstractmethod
    def take(self, drop: Drop, key: str) -> None:
        """Moves a claimed drop to :meth:`place`; does nothing where that was done before.

        Args:
            drop: of the last scan.
            key: of the claim.
        """

    @abstractmethod
    def give_back(self, key: str, name: str) -> None:
        """Lets a claimed drop be found by :meth:`scan` again.

        Args:
            key: of the claim.
            name: of the drop.
        """

    @abstractmethod
    def refuse(self, drop: Drop, reason: str, *, again: bool = False) -> None:
        """Moves something straight out of the inbox, with the reason beside it.

        Args:
            drop: of the last scan.
            reason: why.
            again: it was dealt with before, so it goes to `done`.
        """

    @abstractmethod
    def mend(self) -> None:
        """Ends moves that were broken off, where a move is no rename.

        Raises :class:`InboxAwayError` where one of them still cannot be ended, after the others.
        """

    def place(self, key: str) -> Path:
        """The folder of a claimed drop's media."""
        return self.processing / key / MEDIA

    def input(self, key: str) -> Path:
        """The same, under a name that stays when the drop moves on."""
        return self.inputs / key

    def taken(self, key: str) -> bool:
        """Whether a claimed drop is in its place; makes good what a death left out."""
        place = self.place(key)
        there = place.is_dir() and any(place.iterdir())
        if there and not self.input(key).exists():
            self._link(key, place)
        return there

    def claims(self) -> list[tuple[str, str]]:
        """Keys and names of all drops in `processing`, the oldest first: what a lost ledger does not know."""
        found = [path for path in self.processing.iterdir() if _KEY.fullmatch(path.name) and self.taken(path.name)]
        found.sort(key=lambda path: (path.lstat().st_mtime_ns, path.name))
        return [(path.name, _name_of(path)) for path in found]

    def finish(self, key: str, name: str) -> None:
        """Moves a drop whose run ended well."""
        self._leave(self.processing / key, self.done / labelled(name, key), key)

    def reject(self, key: str, name: str, reason: str) -> None:
        """Moves a claimed drop that cannot be used, with the reason beside its files."""
        if (self.processing / key).exists():  # else that was done before a death
            write_atomic(self.processing / key / REASON_FILE, reason_text(name, reason))
        self._leave(self.processing / key, self.rejected / labelled(name, key), key)

    def restore(self, key: str, name: str) -> None:
        """Moves a drop that was rejected, and whose run ended well after all, to `done`."""
        label = labelled(name, key)
        (self.rejected / label / REASON_FILE).unlink(missing_ok=True)
        self._leave(self.rejected / label, self.done / label, key)

    def reason(self, key: str, name: str) -> str:
        """Why a claimed drop was rejected; empty: it was not."""
        path = self.rejected / labelled(name, key) / REASON_FILE
        return str(json.loads(path.read_text(encoding="utf-8"))["reason"]) if path.exists() else ""

    def _leave(self, source: Path, target: Path, key: str) -> None:
        if source.exists():
            target = _free(target)  # a lost ledger lets the same drop end twice
            os.utime(source)  # its end, for prune
            source.rename(target)
            sync(source.parent, target.parent)
        if (target / MEDIA).is_dir():
            self._link(key, target / MEDIA)

    def _link(self, key: str, media: Path) -> None:
        """Points a run's input at the media; the old link stands until the new one does."""
        fresh = self.inputs / f".{key}"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(Path("..") / media.relative_to(self.root), target_is_directory=True)
        fresh.replace(self.input(key))


def note_name(folder: Path, name: str) -> None:
    """Keeps a claimed drop's name beside it."""
    write_atomic(folder / DROP_FILE, json.dumps({"name": name}) + "\n")


def _name_of(folder: Path) -> str:
    """What :func:`note_name` wrote; else the name of a single file, or of the folder."""
    try:
        return str(json.loads((folder / DROP_FILE).read_text(encoding="utf-8"))["name"])
    except (OSError, ValueError, KeyError):
        files = list((folder / MEDIA).iterdir())
        return files[0].name if len(files) == 1 else folder.name


def _free(path: Path) -> Path:
    """The path itself, or where something is there one with a number."""
    tries = (path.with_name(f"{path.name}-again-{number}") for number in range(1_000_000))
    return path if not path.exists() else next(other for other in tries if not other.exists())
