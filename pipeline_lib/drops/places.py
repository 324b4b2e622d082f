"""Where the inbox that a person named keeps its things on this machine."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pipeline_lib.steps.state import StateFolder

_OF_STORES = "drops-of-stores"


def drops_home(place: str, state: StateFolder) -> Path:
    """The folder of this machine that belongs to an inbox.

    Args:
        place: a folder, or the URL of an object store; empty: `drops` in the state folder.
        state: the state folder, where that of an object store is.

    Returns:
        Its ledger, lock and heartbeat are there, and the drops that were claimed.
    """
    if not is_store(place):
        return Path(place.removeprefix("file://") or state.drops).expanduser().resolve()
    url = place.rstrip("/")
    words = re.sub(r"[^a-z0-9]+", "-", url.lower()).strip("-")[:48]
    return state.root / _OF_STORES / f"{words}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def known_homes(state: StateFolder) -> list[Path]:
    """Homes of inboxes that are in the state folder: its own one, and those of object stores."""
    return [state.drops, *sorted((state.root / _OF_STORES).glob("*"))]


def is_store(place: str) -> bool:
    """Whether an inbox is in an object store."""
    return "://" in place and not place.startswith("file://")


def inbox_of(place: str, state: StateFolder) -> str:
    """Where drops are to be put, in words.

    Args:
        place: as of :func:`drops_home`.
        state: likewise.

    Returns:
        A folder or a URL.
    """
    return f"{place.rstrip('/') if is_store(place) else drops_home(place, state)}/inbox"
