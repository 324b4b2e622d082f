"""Which drops were seen, and what became of them: one SQLite file that outlives every process."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["claimed", "submitted", "done", "rejected"]

_TABLE = """
CREATE TABLE IF NOT EXISTS drops (
    digest TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    run TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    attempt INTEGER NOT NULL DEFAULT 1,
    claimed REAL NOT NULL
)
"""


@dataclass(frozen=True)
class Entry:
    """One drop.

    Attributes:
        digest: of its contents.
        name: under which it came first.
        state: claimed: ours, perhaps not submitted; submitted: has a run; done or rejected: at its end.
        run: id of its flow run.
        reason: why it was rejected.
        attempt: a drop that was rejected may come again, and is another one then.
    """

    digest: str
    name: str
    state: State
    run: str
    reason: str
    attempt: int

    @property
    def key(self) -> str:
        """Names this attempt: the digest, and from the second on its number."""
        return self.digest if self.attempt == 1 else f"{self.digest}-{self.attempt}"


class Ledger:
    """Claims are atomic: of many processes that see the same drop, one gets it.

    Args:
        path: of the database; made when missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute(_TABLE)

    def claim(self, digest: str, name: str) -> bool:
        """Takes a drop on.

        Args:
            digest: of its contents.
            name: under which it came.

        Returns:
            False where the same contents were claimed before, and not rejected.
        """
        with self._open() as database:
            cursor = database.execute(
                "INSERT INTO drops (digest, name, state, claimed) VALUES (?, ?, 'claimed', ?) "
                "ON CONFLICT (digest) DO UPDATE SET name = excluded.name, state = 'claimed', run = '', reason = '', "
                "claimed = excluded.claimed, attempt = attempt + 1 WHERE state = 'rejected'",
                (digest, name, time.time()),
            )
            return cursor.rowcount == 1

    def entry(self, digest: str) -> Entry:
        """The drop of these contents, which was claimed."""
        (found,) = [entry for entry in self.entries() if entry.digest == digest]
        return found

    def submitted(self, digest: str, run: str) -> None:
        """Notes the flow run of a drop."""
        self._set(digest, "submitted", run=run)

    def done(self, digest: str) -> None:
        """Notes that a drop's run ended well."""
        self._set(digest, "done")

    def rejected(self, digest: str, reason: str) -> None:
        """Notes that a drop cannot be used."""
        self._set(digest, "rejected", reason=reason)

    def forget(self, digest: str) -> None:
        """A drop that comes again is new."""
        with self._open() as database:
            database.execute("DELETE FROM drops WHERE digest = ?", (digest,))

    def entries(self, state: State | None = None) -> list[Entry]:
        """All drops, or those in one state, in the order in which they were claimed."""
        where = "WHERE state = ?" if state else ""
        with self._open() as database:
            rows = database.execute(
                f"SELECT digest, name, state, run, reason, attempt FROM drops {where} ORDER BY claimed, rowid",  # noqa: S608
                (state,) if state else (),
            ).fetchall()
        return [Entry(*row) for row in rows]

    def _set(self, digest: str, state: State, *, run: str | None = None, reason: str = "") -> None:
        with self._open() as database:
            database.execute(
                "UPDATE drops SET state = ?, run = coalesce(?, run), reason = ? WHERE digest = ?",
                (state, run, reason, digest),
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=30)) as database, database:
            yield database
