"""From inbox to run: every drop becomes exactly one, whatever dies in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline_lib.drops.concept_file import drop_config
from pipeline_lib.drops.inbox import Drop, FolderInbox, digest_of
from pipeline_lib.drops.ledger import Entry, Ledger
from pipeline_lib.errors import InputError
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.check import check_config


@dataclass(frozen=True)
class Outcome:
    """How a run stands.

    Attributes:
        ended: "well": its concept is there; "refused": its input cannot be used; empty: it runs, waits, or failed in
            a way that another try may mend.
        reason: of a refusal.
    """

    ended: str = ""
    reason: str = ""


class Dispatcher(Protocol):
    """Whoever runs configs.

    Both methods raise `ConnectionError` when it cannot be reached; the drop then waits.
    """

    def submit(self, key: str, config: RunConfig) -> str:
        """Starts the run of a drop; the same key always gives the same run's id.

        Raises InputError where it does not take this config.
        """

    def outcomes(self, runs: Sequence[str]) -> Mapping[str, Outcome]:
        """How runs stand, by id; those that nobody knows any more are left out."""


class Intake:
    """Watches one inbox, turn by turn.

    A drop is claimed in the ledger before it is moved, moved before it is submitted, and submitted under its digest:
    after a death at any point the next turn goes on from what ledger and folders say.

    Args:
        inbox: where drops arrive.
        ledger: of the same inbox.
        dispatcher: runs what the drops ask for.
        template: base, method and training of every run.
        tell: told a sentence about each drop that moves on.
    """

    def __init__(
        self,
        inbox: FolderInbox,
        ledger: Ledger,
        dispatcher: Dispatcher,
        template: RunConfig,
        tell: Callable[[str], None],
    ) -> None:
        self._inbox, self._ledger, self._dispatcher = inbox, ledger, dispatcher
        self._template, self._tell = template, tell
        self._unreached = False
        self._stuck: set[str] = set()

    def turn(self) -> None:
        """Looks once: claims and submits what is whole, moves what has ended."""
        for drop in self._inbox.scan():
            try:
                self._take_in(drop)
            except OSError as error:  # it went, or may not be read or moved: the others go on
                if drop.name not in self._stuck:
                    self._tell(f"{drop.name} stays in the inbox: {error}")
                self._stuck.add(drop.name)
        try:
            for entry in self._ledger.entries("claimed"):
                self._submit(entry)
            waiting = self._ledger.entries("submitted")
            outcomes = self._dispatcher.outcomes([entry.run for entry in waiting]) if waiting else {}
            for entry in waiting:
                self._settle(entry, outcomes.get(entry.run, Outcome()))
        except ConnectionError as error:
            if not self._unreached:  # once, not every turn
                self._tell(f"the server cannot be reached; drops wait: {error}")
            self._unreached = True
        else:
            self._unreached = False

    def _take_in(self, drop: Drop) -> None:
        if drop.problem:
            self._tell(f"{drop.name} rejected: {drop.problem}")
            self._inbox.refuse(drop, drop.problem)
            return
        digest = digest_of(drop.path)
        fresh = self._ledger.claim(digest, drop.name)
        entry = self._ledger.entry(digest)
        # Not fresh, yet not moved: whoever claimed it died in between.
        if fresh or (entry.state == "claimed" and not self._inbox.place(entry.key).exists()):
            self._inbox.take(drop, entry.key)
            return
        reason = f"the same files came before as {entry.name}; {entry.state}"
        self._tell(f"{drop.name}: {reason}")
        self._inbox.refuse(drop, reason, self._inbox.done / f"{drop.name}-again")

    def _submit(self, entry: Entry) -> None:
        if not self._inbox.taken(entry.key):
            self._recover(entry)
            return
        place = self._inbox.place(entry.key)
        try:
            config = drop_config(place, entry.name, self._template, place)
            check_config(config)
            run = self._dispatcher.submit(entry.key, config)
        except InputError as error:
            self._reject(entry, str(error))
            return
        self._ledger.submitted(entry.digest, run)
        self._tell(f"{entry.name} submitted: run {run}")

    def _recover(self, entry: Entry) -> None:
        """After a death: claimed, but not where claimed drops lie."""
        if reason := self._inbox.reason(entry.key, entry.name):
            self._ledger.rejected(entry.digest, reason)
        else:
            self._ledger.forget(entry.digest)  # never moved: it is in the inbox still, or was taken away

    def _settle(self, entry: Entry, outcome: Outcome) -> None:
        if outcome.ended == "well":
            self._inbox.finish(entry.key, entry.name)
            self._ledger.done(entry.digest)
            self._tell(f"{entry.name} done")
        elif outcome.ended == "refused":
            self._reject(entry, outcome.reason)

    def _reject(self, entry: Entry, reason: str) -> None:
        self._inbox.reject(entry.key, entry.name, reason)
        self._ledger.rejected(entry.digest, reason)
        self._tell(f"{entry.name} rejected: {reason}")
