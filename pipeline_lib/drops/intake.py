"""From inbox to run: every drop becomes exactly one, whatever dies in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline_lib.drops.concept_file import drop_config
from pipeline_lib.drops.drop import Drop, digest_of, without_paths
from pipeline_lib.drops.inbox import Inbox, InboxAwayError
from pipeline_lib.drops.ledger import Entry, Ledger
from pipeline_lib.errors import InputError, ResourceError
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.check import check_config

MOST_RETRIES = 2  # of a run that crashes, by ourselves
LATE_SECONDS = 30.0  # between two looks at rejected drops: there may be many


@dataclass(frozen=True)
class Outcome:
    """How a run stands.

    Attributes:
        ended: "well": its concept is there; "refused": its input cannot be used, or a person cancelled it; "crashed":
            its process is gone, or what it needs was away; "stopped": its process was asked to end, as with its
            server; "failed": in another way; empty: it runs or waits.
        reason: of a refusal or failure.
    """

    ended: str = ""
    reason: str = ""


class Dispatcher(Protocol):
    """Whoever runs configs.

    All methods raise `ConnectionError` when it cannot be reached; the drop then waits.
    """

    def submit(self, key: str, config: RunConfig) -> str:
        """Starts the run of a drop; the same key always gives the same run's id.

        Raises InputError where it does not take this config.
        """

    def outcomes(self, runs: Sequence[str]) -> Mapping[str, Outcome]:
        """How runs stand, by id; those that nobody knows any more are left out."""

    def retry(self, run: str) -> bool:
        """Starts a run again; does nothing, and says so, where it has not ended any more: a person was quicker."""


class Intake:
    """Watches one inbox, turn by turn.

    A drop is claimed in the ledger before it is moved, moved before it is submitted, and submitted under its digest:
    after a death at any point the next turn goes on from what ledger and folders say.

    Args:
        inbox: where drops arrive.
        ledger: of the same inbox; where it was lost, what is in processing is claimed anew.
        dispatcher: runs what the drops ask for.
        template: base, method and training of every run.
        tell: told a sentence about each drop that moves on.
    """

    def __init__(
        self,
        inbox: Inbox,
        ledger: Ledger,
        dispatcher: Dispatcher,
        template: RunConfig,
        tell: Callable[[str], None],
    ) -> None:
        self._inbox, self._ledger, self._dispatcher = inbox, ledger, dispatcher
        self._template, self._tell = template, tell
        self._waits: dict[str, str] = {}
        self._stuck: set[str] = set()
        self._verified: set[str] = set()
        self._given_up: set[str] = set()
        self._next_late = 0.0
        for key, name in inbox.claims():
            if ledger.adopt(key, name):
                tell(f"{name} was in processing and in no ledger; claimed again")

    def turn(self) -> None:
        """Looks once: claims and submits what is whole, moves what has ended."""
        self._reach("moves", self._inbox.mend)
        self._reach("inbox", self._take_all_in)
        self._reach("server", self._go_on)

    def _reach(self, what: str, act: Callable[[], None]) -> None:
        try:
            act()
        except (ConnectionError, ResourceError) as error:
            if str(error) not in self._waits.values():  # once, not every turn
                self._tell(f"drops wait: {error}")
            self._waits[what] = str(error)
        else:
            self._waits.pop(what, None)

    def _take_all_in(self) -> None:
        whole = self._inbox.scan()
        trouble = self._inbox.trouble
        for drop in whole:
            try:
                self._take_in(drop)
            except InboxAwayError:
                raise
            except (OSError, InputError) as error:  # it went, changed, or may not be read or moved: the others go on
                if drop.name not in self._stuck:
                    self._tell(f"{drop.name} stays in the inbox: {error}")
                self._stuck.add(drop.name)
        if trouble is not None:
            raise ResourceError(str(trouble)) from trouble

    def _go_on(self) -> None:
        stuck = _each(self._ledger.entries("claimed"), self._submit)
        waiting, late = self._ledger.entries("submitted"), self._rejected_by_runs()
        runs = [entry.run for entry in (*waiting, *late)]
        outcomes = self._dispatcher.outcomes(runs) if runs else {}
        stuck += _each(waiting, lambda entry: self._settle(entry, outcomes.get(entry.run)))
        stuck += _each([entry for entry in late if outcomes.get(entry.run) == Outcome("well")], self._restore)
        if stuck:
            raise stuck[0]

    def _rejected_by_runs(self) -> list[Entry]:
        """Rejected drops whose run a person may have tried again; none, until it is time for another look."""
        now = time.monotonic()
        if now < self._next_late:
            return []
        self._next_late = now + LATE_SECONDS
        return [entry for entry in self._ledger.entries("rejected") if entry.run]

    def _take_in(self, drop: Drop) -> None:
        if drop.problem:
            self._tell(f"{drop.name} rejected: {drop.problem}")
            self._inbox.refuse(drop, drop.problem)
            return
        digest = digest_of(drop.path)
        fresh = self._ledger.claim(digest, drop.name)
        entry = self._ledger.entry(digest)
        # Not fresh, yet not moved: whoever claimed it died in between.
        if fresh or (entry.state == "claimed" and not self._inbox.taken(entry.key)):
            self._inbox.take(drop, entry.key)
            return
        reason = f"the same files came before as {entry.name}; {entry.state}"
        self._tell(f"{drop.name}: {reason}")
        self._inbox.refuse(drop, reason, again=True)

    def _submit(self, entry: Entry) -> None:
        if not self._inbox.taken(entry.key):
            self._recover(entry)
            return
        if not self._is_as_claimed(entry):
            return
        try:
            config = drop_config(self._inbox.place(entry.key), entry.name, self._template, self._inbox.input(entry.key))
            check_config(config)
            run = self._dispatcher.submit(entry.key, config)
        except InputError as error:
            self._reject(entry, str(error))
            return
        self._ledger.submitted(entry.digest, run)
        self._tell(f"{entry.name} submitted: run {run}")

    def _is_as_claimed(self, entry: Entry) -> bool:
        """Whether nobody wrote to it between the digest and the move; else it was not whole, and has to settle again.

        Who still has a file open may write to it later, too; then the run itself tells what it has learned from.
        """
        if entry.key in self._verified:
            return True
        try:
            same = digest_of(self._inbox.place(entry.key)) == entry.digest
        except (InputError, FileNotFoundError):  # a link or a partial file has come into it
            same = False
        if same:
            self._verified.add(entry.key)
            return True
        self._inbox.give_back(entry.key, entry.name)
        self._ledger.unclaim(entry.digest)
        self._tell(f"{entry.name} changed while it was taken; it waits in the inbox again")
        return False

    def _recover(self, entry: Entry) -> None:
        """After a death: claimed, but not where claimed drops lie."""
        if reason := self._inbox.reason(entry.key, entry.name):
            self._ledger.rejected(entry.digest, reason)
        else:
            self._ledger.unclaim(entry.digest)  # never moved: it is in the inbox still, or was taken away

    def _settle(self, entry: Entry, outcome: Outcome | None) -> None:
        if outcome is not None and outcome.ended in ("crashed", "stopped", "failed"):
            self._try_again(entry, outcome)
            return
        self._given_up.discard(entry.run)
        if outcome is None:  # deleted there, or another server than before: the key makes a second one no double
            self._ledger.reclaim(entry.digest)
            self._tell(f"{entry.name} is not known to the server any more; submitted again")
        elif outcome.ended == "well":
            self._inbox.finish(entry.key, entry.name)
            self._ledger.done(entry.digest)
            self._tell(f"{entry.name} done")
        elif outcome.ended == "refused":
            self._reject(entry, outcome.reason)

    def _try_again(self, entry: Entry, outcome: Outcome) -> None:
        """A crash is not the drop's fault; one that comes again and again is for a person to look at."""
        if outcome.ended == "failed":
            self._give_up(entry, f"its run failed: {outcome.reason}")
        elif outcome.ended == "crashed" and entry.retries >= MOST_RETRIES:
            self._give_up(entry, f"its run crashed again after {MOST_RETRIES} retries")
        elif self._dispatcher.retry(entry.run):
            count = ""
            if outcome.ended == "crashed":
                self._ledger.retried(entry.digest)
                count = f", retry {entry.retries + 1} of {MOST_RETRIES}"
            what = "crashed" if outcome.ended == "crashed" else "was stopped"
            self._tell(f"{entry.name}: its run {what} and is tried again{count}: run {entry.run}")

    def _give_up(self, entry: Entry, why: str) -> None:
        """Tells a person once for each such end."""
        if entry.run not in self._given_up:
            self._given_up.add(entry.run)
            self._tell(f"{entry.name} waits for a person: {why}; press Retry in Prefect's UI: run {entry.run}")

    def _restore(self, entry: Entry) -> None:
        self._inbox.restore(entry.key, entry.name)
        self._ledger.done(entry.digest)
        self._tell(f"{entry.name} done after all: its run was tried again")

    def _reject(self, entry: Entry, reason: str) -> None:
        places = self._inbox.place(entry.key), self._inbox.input(entry.key)
        told = without_paths(reason, entry.name, *places)
        self._inbox.reject(entry.key, entry.name, told)
        self._ledger.rejected(entry.digest, told)
        self._tell(f"{entry.name} rejected: {told}")


def _each(entries: Sequence[Entry], act: Callable[[Entry], None]) -> list[InboxAwayError]:
    """Does it for all; what the inbox cannot do for one of them now keeps no other waiting."""
    stuck = []
    for entry in entries:
        try:
            act(entry)
        except InboxAwayError as error:
            stuck.append(error)
    return stuck
