"""An inbox on a file system; all moves are renames."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline_lib.drops.concept_file import MEDIA, READY_MARK
from pipeline_lib.drops.drop import (
    REASON_FILE,
    Drop,
    files_of,
    hidden,
    opened,
    readable,
    reason_text,
    short,
    without_paths,
)
from pipeline_lib.drops.inbox import Inbox, note_name
from pipeline_lib.errors import InputError
from pipeline_lib.storage import write_atomic
from pipeline_lib.storage.files import sync


class FolderInbox(Inbox):
    """`root/inbox`: folders, or single clips.

    Args:
        root: holds the inbox and the other folders, on one file system; they are made.
        settle_seconds: see :class:`pipeline_lib.drops.settling.Settling`.
        patience_seconds: likewise.
    """

    def __init__(self, root: Path, settle_seconds: float = 2.0, patience_seconds: float = 120.0) -> None:
        super().__init__(root, settle_seconds, patience_seconds)
        self.inbox.mkdir(exist_ok=True)

    @property
    def inbox(self) -> Path:
        """Where drops arrive."""
        return self.root / "inbox"

    def mend(self) -> None:
        """See the contract."""

    def scan(self) -> list[Drop]:
        """See the contract; a drop that vanishes while it is looked at is none."""
        here = [path for path in self.inbox.iterdir() if not hidden(path.name)]
        self._settling.keep({path.name for path in here})
        whole = self._each(here, self._look)
        return sorted(whole, key=lambda drop: (_age(drop.path), drop.name))

    def _look(self, path: Path) -> Drop | None:
        name = readable(path.name)
        try:
            files = files_of(path)
            fingerprint = tuple((str(item), (facts := item.lstat()).st_size, facts.st_mtime_ns) for item in files)
            marked = path.is_dir() and (path / READY_MARK).exists()
        except FileNotFoundError:  # it changes while we look, or a copy is under way
            return None
        except PermissionError:
            return Drop(name, path, f"{name} may not be read by the service")
        except InputError as error:
            return Drop(name, path, without_paths(str(error), name, path))
        verdict = self._settling.look(path.name, fingerprint, marked, lambda: opened(path, name))
        return None if verdict is None else Drop(name, path, verdict.problem)

    def take(self, drop: Drop, key: str) -> None:
        """See the contract; a single file goes through a hidden folder, so that its place is there whole or not."""
        place = self.place(key)
        if not self.taken(key):
            place.parent.mkdir(parents=True, exist_ok=True)
            note_name(place.parent, drop.name)
            if drop.path.is_dir():
                drop.path.rename(place)
            else:
                nursery = _nursery(place)
                nursery.mkdir(exist_ok=True)
                drop.path.rename(nursery / drop.name)
                nursery.rename(place)
            sync(self.inbox, place.parent, self.processing)
        self._link(key, place)

    def taken(self, key: str) -> bool:
        """See the contract."""
        place, nursery = self.place(key), _nursery(self.place(key))
        if not place.exists() and nursery.is_dir() and any(nursery.iterdir()):
            nursery.rename(place)
            sync(place.parent)
        return super().taken(key)

    def give_back(self, key: str, name: str) -> None:
        """See the contract."""
        place = self.place(key)
        alone = [path.name for path in place.iterdir()] == [name]  # it came as a single file
        tries = (f"{number}-{name}" if number else name for number in range(1_000_000))
        target = next(path for other in tries if not (path := self.inbox / other).exists())
        self.input(key).unlink(missing_ok=True)
        (place / name if alone else place).rename(target)
        shutil.rmtree(place.parent)
        sync(self.inbox, self.processing)

    def refuse(self, drop: Drop, reason: str, *, again: bool = False) -> None:
        """See the contract."""
        base = self.done / short(f"{drop.name}-again") if again else self.rejected / short(drop.name)
        free = next(
            path for number in range(1_000_000) if not (path := base.with_name(f"{base.name}-{number}")).exists()
        )
        free.mkdir(parents=True)
        drop.path.rename(free / MEDIA if drop.path.is_dir() else free / drop.name)
        write_atomic(free / REASON_FILE, reason_text(drop.name, reason))
        sync(self.inbox, free.parent)


def _nursery(place: Path) -> Path:
    return place.with_name(f".{MEDIA}")


def _age(path: Path) -> int:
    try:
        return path.lstat().st_mtime_ns
    except FileNotFoundError:  # it went meanwhile
        return 0
