"""Several runs, some at once: in this process, or on workers; one that fails does not stop the others."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from http import HTTPStatus
from threading import Event
from typing import Any
from uuid import UUID, uuid4

import httpx
import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.states import Cancelling

from flows.personalize import personalize
from pipeline_lib.errors import ConfigError, InputError, StopRequested
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.state import StateFolder
from tasks.session import RunSession, opened

THREADS = "OMP_NUM_THREADS"
LOOK_SECONDS, AWAY_SECONDS = 2.0, 1800.0
"""How often runs on workers are looked at; how long the server may be away."""
log = logging.getLogger(__name__)

_REASON = re.compile(r"^Flow run encountered an exception:? ?(?:\w+: )?")


@dataclass(frozen=True)
class Job:
    """A run that is wanted.

    Attributes:
        number: its place in the batch.
        name: for people.
        config: what to run.
        run_id: name of its run folder.
    """

    number: int
    name: str
    config: RunConfig
    run_id: str


@dataclass(frozen=True)
class Ended:
    """How a run came out.

    Attributes:
        seconds: that it took.
        found: nothing had to be made.
        reason: why it failed; empty: it did not.
    """

    seconds: float
    found: bool = False
    reason: str = ""


OnEnd = Callable[[Job, Ended], None]


def run_here(jobs: Sequence[Job], at_once: int, on_end: OnEnd) -> None:
    """Runs jobs as subflows of this process.

    Args:
        jobs: what to run.
        at_once: that many beside each other, each with a worker child of its own.
        on_end: told about each, in this thread.
    """
    if at_once == 1 or len(jobs) < 2:
        for job in jobs:
            on_end(job, _run_one(job, Event()))
        return
    stopping = Event()
    # A session belongs to the context of its flow, so that each thread has its own.
    with (
        _shared_cores(min(at_once, len(jobs))),
        ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="batch") as pool,
    ):
        waiting = {pool.submit(copy_context().run, _run_one, job, stopping): job for job in jobs}
        try:
            for future in as_completed(waiting):
                on_end(waiting[future], future.result())
        except BaseException:
            stopping.set()  # the others leave with their next event, after a checkpoint
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run_on_workers(jobs: Sequence[Job], at_once: int, on_end: OnEnd, *, deployment: str) -> None:
    """Runs jobs on a deployment, as subflows; interrupted, it cancels those that run.

    While the server is away, as during its restart, the runs go on, and this waits for it.

    Args:
        jobs: what to run.
        at_once: that many are submitted at a time; the workers' own limits count as well.
        on_end: told about each.
        deployment: `flow/deployment`.

    Raises:
        ConfigError: there is no such deployment, or it is for another base or method than a job.
    """
    # Asked twice with one key, as after an answer that got lost, the server makes one run.
    waiting, running = [(job, str(uuid4())) for job in jobs], dict[UUID, Job]()
    seen = time.monotonic()
    with get_client(sync_client=True) as client:
        _check_deployment(client, deployment, jobs)
        try:
            while waiting or running:
                try:
                    while waiting and len(running) < at_once:
                        _submit(waiting[0], deployment, running, on_end)
                        del waiting[0]
                    time.sleep(LOOK_SECONDS)
                    for run_id in list(running):
                        if (ended := _ended(client, run_id)) is not None:
                            on_end(running.pop(run_id), ended)
                    seen = time.monotonic()
                except httpx.HTTPError as error:
                    if not _is_away(error) or time.monotonic() - seen > AWAY_SECONDS:
                        raise
                    log.warning("Prefect's server does not answer: %s", error or type(error).__name__)
                    time.sleep(LOOK_SECONDS)
        except BaseException:
            for run_id in running:
                with suppress(PrefectException, httpx.HTTPError):
                    client.set_flow_run_state(run_id, Cancelling())
            raise


@contextmanager
def _shared_cores(at_once: int) -> Iterator[None]:
    """Worker children that are started meanwhile share the cores, where nobody has said how many threads they have."""
    if THREADS in os.environ:
        yield
        return
    os.environ[THREADS] = str(max(1, len(psutil.Process().cpu_affinity()) // at_once))
    try:
        yield
    finally:
        del os.environ[THREADS]


def _run_one(job: Job, stopping: Event) -> Ended:
    started = time.monotonic()

    def heard(_event: dict[str, Any]) -> None:
        if stopping.is_set():
            raise StopRequested("the batch was stopped")

    try:
        if stopping.is_set():
            raise StopRequested("the batch was stopped")
        result = _personalized(job.config, heard)
    except StopRequested:
        raise
    except Exception as error:
        return Ended(time.monotonic() - started, reason=str(error) or type(error).__name__)
    return Ended(time.monotonic() - started, found=bool(result["found"]))


def _personalized(config: RunConfig, heard: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    try:
        session = RunSession(config, StateFolder.open(), heard)
    except InputError:
        return _made(personalize(config))  # raises it again, in a flow run of its own that shows it
    with opened(session):
        return _made(personalize(config))


def _made(result: dict[str, Any] | State[Any]) -> dict[str, Any]:
    assert isinstance(result, dict), "only a review ends a run in another state, and a batch asks for none"
    return result


def _check_deployment(client: SyncPrefectClient, deployment: str, jobs: Sequence[Job]) -> None:
    """Refuses one whose name would promise another base or method than its runs get: a job brings its whole config."""
    try:
        declared = client.read_deployment_by_name(deployment).parameters.get("config", {})
    except (ObjectNotFound, ValueError) as error:
        known = ", ".join(sorted(f"{found.name}" for found in client.read_deployments()))
        raise ConfigError(
            f"the server knows no deployment {deployment!r}", expected=f"FLOW/NAME; its names: {known or 'none'}"
        ) from error
    for job in jobs:
        wanted = {"base.source": job.config.base.source, "method.name": job.config.method.name}
        for key, own in wanted.items():
            section, _, name = key.partition(".")
            if (theirs := declared.get(section, {}).get(name, own)) != own:
                raise ConfigError(
                    f"the deployment {deployment!r} has {key} {theirs!r}",
                    got=f"{key} {own!r} for {job.name}",
                    fix=f"say so in the config (--set {key}={theirs}), or name a deployment that has {own!r}",
                )


def _submit(asked: tuple[Job, str], deployment: str, running: dict[UUID, Job], on_end: OnEnd) -> None:
    """Asks for a run; one that the deployment refuses has ended."""
    job, key = asked
    try:
        run = run_deployment(
            deployment,
            parameters={"config": job.config.model_dump(mode="json")},
            timeout=0,
            tags=["batch"],
            flow_run_name=job.name,
            idempotency_key=key,
        )
    except httpx.HTTPStatusError as error:
        if error.response.status_code not in (HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY):
            raise
        refused = ConfigError("the deployment refuses this run", got=error.response.text[:300])
        on_end(job, Ended(0.0, reason=str(refused)))
        return
    except ObjectNotFound:
        on_end(job, Ended(0.0, reason=f"the server knows no deployment {deployment!r} any more"))
        return
    assert isinstance(run, FlowRun)  # outside of an event loop
    running[run.id] = job


def _ended(client: SyncPrefectClient, run_id: UUID) -> Ended | None:
    """How a run has come to its end, if it has; one that is cancelled, crashed or deleted has failed."""
    try:
        run = client.read_flow_run(run_id)
    except ObjectNotFound:
        return Ended(0.0, reason="its flow run was deleted")
    if run.state is None or not run.state.is_final():
        return None
    seconds = run.total_run_time.total_seconds()
    if run.state.is_completed():
        return Ended(seconds)
    why = _REASON.sub("", run.state.message or "") or run.state.name or run.state.type.value.lower()
    return Ended(seconds, reason=why)


def _is_away(error: httpx.HTTPError) -> bool:
    return not isinstance(error, httpx.HTTPStatusError) or error.response.is_server_error
