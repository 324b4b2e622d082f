"""When something that arrives bit by bit is whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass

from pipeline_lib.drops.drop import Verdict


@dataclass
class _Seen:
    fingerprint: Hashable
    since: float
    verdict: Verdict | None = None


class Settling:
    """Remembers how drops looked the last time.

    A drop is whole when it is marked as ready, or when nothing about it has changed for `settle_seconds` and its
    media decode to their end. Media that do not may be half-written still: only after `patience_seconds` without a
    change are they taken as they are.

    Args:
        settle_seconds: see above.
        patience_seconds: see above.
    """

    def __init__(self, settle_seconds: float, patience_seconds: float) -> None:
        self._settle, self._patience = settle_seconds, patience_seconds
        self._seen: dict[str, _Seen] = {}

    def look(self, name: str, fingerprint: Hashable, marked: bool, opened: Callable[[], Verdict]) -> Verdict | None:
        """Looks at a drop once more.

        Args:
            name: of the drop.
            fingerprint: of all that would change if somebody wrote to it.
            marked: whether whoever dropped it says that it is ready.
            opened: opens its media; asked once for each fingerprint.

        Returns:
            What opening it told; None while it may not be whole.
        """
        now = time.monotonic()
        seen = self._seen.get(name)
        if seen is None or seen.fingerprint != fingerprint:
            seen = self._seen[name] = _Seen(fingerprint, now)
        if not marked and now - seen.since < self._settle:
            return None
        seen.verdict = seen.verdict or opened()
        if seen.verdict.unfinished and not marked and now - seen.since < self._patience:
            return None
        return seen.verdict

    def keep(self, names: Collection[str]) -> None:
        """Forgets all but those that are still there."""
        self._seen = {name: seen for name, seen in self._seen.items() if name in names}
