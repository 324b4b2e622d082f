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
    claimed REAL NOT NULL,
    retries INTEGER NOT NULL DEFAULT 0
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
        retries: how often the service itself has tried this run again.
    """

    digest: str
    name: str
    state: State
    run: str
    reason: str
    attempt: int
    retries: int

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
            columns = {name for _, name, *_ in database.execute("PRAGMA table_info(drops)")}
            if "retries" not in columns:  # made by an older version
                database.execute("ALTER TABLE drops ADD COLUMN retries INTEGER NOT NULL DEFAULT 0")

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
        (found,) = self._rows("WHERE digest = ?", (digest,))
        return found

    def submitted(self, digest: str, run: str) -> None:
        """Notes the flow run of a drop."""
        self._set(digest, "submitted", run=run)

    def retried(self, digest: str) -> None:
        """Counts a retry of a drop's run."""
        with self._open() as database:
            database.execute("UPDATE drops SET retries = retries + 1 WHERE digest = ?", (digest,))

    def reclaim(self, digest: str) -> None:
        """Notes that a drop has no flow run any more."""
        self._set(digest, "claimed", run="")

    def done(self, digest: str) -> None:
        """Notes that a drop's run ended well."""
        self._set(digest, "done")

    def rejected(self, digest: str, reason: str) -> None:
        """Notes that a drop cannot be used."""
        self._set(digest, "rejected", reason=reason)

    def unclaim(self, digest: str) -> None:
        """Takes a claim back: the drop may be claimed again, as the same attempt."""
        with self._open() as database:
            database.execute("DELETE FROM drops WHERE digest = ? AND attempt = 1", (digest,))
            database.execute(
                "UPDATE drops SET state = 'rejected', attempt = attempt - 1 WHERE digest = ? AND state = 'claimed'",
                (digest,),
            )

    def adopt(self, key: str, name: str) -> bool:
        """Claims what is in `processing` where no ledger says so: that was lost, or is an older copy.

        Args:
            key: of the former claim.
            name: of the drop.

        Returns:
            Whether it was unknown.
        """
        digest, _, attempt = key.partition("-")
        with self._open() as database:
            cursor = database.execute(
                "INSERT INTO drops (digest, name, state, attempt, claimed) VALUES (?, ?, 'claimed', ?, ?) "
                "ON CONFLICT (digest) DO UPDATE SET name = excluded.name, state = 'claimed', run = '', reason = '', "
                "claimed = excluded.claimed, attempt = excluded.attempt WHERE attempt < excluded.attempt",
                (digest, name, int(attempt or 1), time.time()),
            )
            return cursor.rowcount == 1

    def entries(self, state: State | None = None) -> list[Entry]:
        """All drops, or those in one state, in the order in which they were claimed."""
        return self._rows("WHERE state = ?", (state,)) if state else self._rows("", ())

    def _rows(self, where: str, values: tuple[str, ...]) -> list[Entry]:
        with self._open() as database:
            rows = database.execute(
                f"SELECT digest, name, state, run, reason, attempt, retries FROM drops {where} "  # noqa: S608
                "ORDER BY claimed, rowid",
                values,
            ).fetchall()
        return [Entry(*row) for row in rows]

    def _set(self, digest: str, state: State, *, run: str | None = None, reason: str = "") -> None:
        with self._open() as database:
            database.execute(
                "UPDATE drops SET state = ?1, run = coalesce(?2, run), reason = ?3, "
                "retries = iif(?2 IS NULL, retries, 0) WHERE digest = ?4",  # they are of one run
                (state, run, reason, digest),
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=30)) as database, database:
            yield database
