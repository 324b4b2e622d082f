"""Drops become flow runs: what `pipeline_lib.drops` asks of a server, answered by Prefect."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from filelock import FileLock, Timeout
from watchfiles import watch

from pipeline_lib.drops.folder_inbox import FolderInbox
from pipeline_lib.drops.heartbeat import Heartbeat
from pipeline_lib.drops.inbox import Inbox
from pipeline_lib.drops.intake import Intake, Outcome
from pipeline_lib.drops.ledger import Ledger
from pipeline_lib.drops.places import is_store
from pipeline_lib.errors import ConfigError
from pipeline_lib.run_config import RunConfig

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

DEPLOYMENT = "personalize/set-and-sequence-pocket"
LEDGER_FILE, LOCK_FILE = "ledger.db", "watcher.lock"
_REFUSED = re.compile(r"\b(?:InputError|MediaError|ConfigError): (.*)", re.DOTALL)
_AWAY, _STOPPED = "UnreachableError: ", "termination signal"  # the second is Prefect's word
_AT_ONCE = 100
CRASHED_SECONDS = 15.0  # a worker says Crashed twice, some moments apart: the second one would end a retry
FOLDER_SECONDS, STORE_SECONDS = 2.0, 5.0  # between two looks; what does not change in between may be whole
EVENT = "mannerism.drop.submitted"


class PrefectDispatcher:
    """Runs drops on a deployment of the server of PREFECT_API_URL; see :class:`pipeline_lib.drops.intake.Dispatcher`.

    Args:
        deployment: `flow/deployment`.
    """

    def __init__(self, deployment: str = DEPLOYMENT) -> None:
        self._deployment = deployment

    def submit(self, key: str, config: RunConfig) -> str:
        """See the contract; Prefect returns the same run for the same idempotency key."""
        from prefect.client.schemas.objects import FlowRun
        from prefect.deployments import run_deployment

        with _reached():
            run = run_deployment(
                self._deployment,
                parameters={"config": config.model_dump(mode="json")},
                idempotency_key=f"drop-{key}",
                timeout=0,
                as_subflow=False,
                tags=["drop"],
            )
        assert isinstance(run, FlowRun)  # outside of an event loop
        _emit(key, config.concept_name, str(run.id))
        return str(run.id)

    def outcomes(self, runs: Sequence[str]) -> Mapping[str, Outcome]:
        """See the contract."""
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        found: dict[str, Outcome] = {}
        with _reached(), get_client(sync_client=True) as client:
            for start in range(0, len(runs), _AT_ONCE):
                ids = [UUID(run) for run in runs[start : start + _AT_ONCE]]
                for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids))):
                    found[str(run.id)] = Outcome() if run.state is None else outcome_of(run.state)
        return found

    def retry(self, run: str) -> bool:
        """See the contract; what the button "Retry" does."""
        from prefect.client.orchestration import get_client
        from prefect.client.schemas import OrchestrationResult, SetStateStatus
        from prefect.states import AwaitingRetry

        with _reached(), get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(run)).state
            if state is None or not _lost(state):
                return False
            again: State[Any] = AwaitingRetry(message="Retry by the watcher of drops")
            answer: OrchestrationResult[Any] = client.set_flow_run_state(UUID(run), again)
            return answer.status == SetStateStatus.ACCEPT


def _emit(key: str, name: str, run: str) -> None:
    """An event for whoever wants to react to drops; a thread of Prefect's own sends it, and may fail to.

    The drop itself does not go by it: events come at most once, submits exactly once.
    """
    from prefect.events import emit_event

    emit_event(
        event=EVENT,
        resource={"prefect.resource.id": f"mannerism.drop.{key}", "prefect.resource.name": name},
        related=[{"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.role": "flow-run"}],
        payload={"digest": key.partition("-")[0], "name": name, "run": run},
    )


@contextmanager
def _reached() -> Iterator[None]:
    """Tells a server that is away, or not set up, from one that refuses what it was given."""
    from prefect.exceptions import ObjectNotFound

    try:
        yield
    except ObjectNotFound as error:
        raise ConnectionError(f"the server does not know this deployment yet: {error}") from error
    except httpx.HTTPStatusError as error:
        if error.response.status_code in (HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY):
            raise ConfigError("the deployment refuses this run", got=error.response.text[:300]) from error
        raise ConnectionError(f"the server cannot be used now: {error}") from error
    except httpx.HTTPError as error:
        raise ConnectionError(f"the server cannot be reached: {error or type(error).__name__}") from error


def outcome_of(state: State[Any]) -> Outcome:
    """What the state of a flow run means for its drop.

    A failure that is not the input's fault leaves the drop where it is, so that a retry finds its files.

    Args:
        state: of the flow run.

    Returns:
        The outcome.
    """
    if state.is_completed():
        return Outcome("well")
    if state.is_cancelled():
        return Outcome("refused", "its run was cancelled")
    message = state.message or ""
    if lost := _lost(state):
        old = datetime.now(UTC) - state.timestamp >= timedelta(seconds=CRASHED_SECONDS)
        return Outcome(lost) if old else Outcome()
    if not state.is_failed():
        return Outcome()
    refused = _REFUSED.search(message)
    return Outcome("refused", refused.group(1).strip()) if refused else Outcome("failed", message)


def _lost(state: State[Any]) -> str:
    """How a run was lost, "crashed" or "stopped" as in :class:`Outcome`; empty: it was not."""
    message = state.message or ""
    if state.is_crashed():
        return "stopped" if _STOPPED in message else "crashed"
    return "crashed" if state.is_failed() and _AWAY in message else ""


def watch_inbox(
    place: str, home: Path, template: RunConfig, tell: Callable[[str], None], *, deployment: str = DEPLOYMENT
) -> None:
    """Watches an inbox until it is interrupted.

    Args:
        place: a folder, or the URL of an object store.
        home: of :func:`pipeline_lib.drops.places.drops_home`.
        template: base, method and training of every run.
        tell: told a sentence about each drop that moves on.
        deployment: that runs them.

    Raises:
        ConfigError: another watcher has this inbox (two would take each other's claims for those of a dead one), or
            no package for this kind of store is installed.
    """
    home.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(home / LOCK_FILE, timeout=0):
            inbox, looks = _opened(place, home)
            intake = Intake(inbox, Ledger(home / LEDGER_FILE), PrefectDispatcher(deployment), template, tell)
            heartbeat = Heartbeat(home)
            with heartbeat.alive():
                for _ in looks:
                    intake.turn()
                    heartbeat.beat()
    except Timeout:
        raise ConfigError(f"{place} is watched already", fix="one watcher serves an inbox; `up` has its own") from None


def _opened(place: str, home: Path) -> tuple[Inbox, Iterator[None]]:
    """An inbox, and the moments at which to look at it."""
    if is_store(place):
        from pipeline_lib.drops.object_inbox import ObjectInbox
        from pipeline_lib.drops.object_store import ObjectStore

        store = ObjectStore.open(place)
        return ObjectInbox(store, home, settle_seconds=STORE_SECONDS), _every(STORE_SECONDS)
    folder = FolderInbox(home, settle_seconds=FOLDER_SECONDS)
    return folder, _changes(folder.inbox)


def _changes(folder: Path) -> Iterator[None]:
    """The watcher of the file system only wakes us early; looking every few seconds is what counts."""
    yield
    with suppress(
        OSError, RuntimeError
    ):  # no watches left, or a file system that has none; watchfiles says it either way
        for _ in watch(folder, rust_timeout=int(1000 * FOLDER_SECONDS), yield_on_timeout=True, debounce=500):
            yield
        return  # interrupted
    yield from _every(FOLDER_SECONDS)


def _every(seconds: float) -> Iterator[None]:
    while True:
        yield
        time.sleep(seconds)
