"""Runs of a batch on workers: a real server, a real runner that takes them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx
import pytest

from pipeline_lib.errors import ConfigError
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.state import StateFolder
from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from flows.many_runs import Job

pytestmark = pytest.mark.system

DEPLOYMENT = "pretend/served"
PATIENCE = 240.0


@pytest.fixture(scope="module")
def served(state: StateFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process that serves the deployment, ended with all that it started."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.settings import PREFECT_API_URL

    log = tmp_path_factory.mktemp("served") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker_program.py"))],
            cwd=REPOSITORY,
            env={**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        with get_client(sync_client=True) as client:

            def there() -> bool:
                try:
                    return bool(client.read_deployment_by_name(DEPLOYMENT))
                except ObjectNotFound:
                    return False

            assert until(there), log.read_text()
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while not (found := true()) and time.monotonic() < end:
        time.sleep(0.5)
    return found


def jobs(*names: str) -> list[Job]:
    from flows.many_runs import Job

    configs = [RunConfig.model_validate({"concept": {"name": name}}) for name in names]
    return [Job(number, config.concept_name, config, "") for number, config in enumerate(configs)]


@pytest.mark.timeout(900)
def test_one_that_fails_stops_no_other(served: None) -> None:
    from prefect import flow

    from flows.many_runs import Ended, run_on_workers

    told: dict[str, Ended] = {}

    @flow
    def parent() -> None:
        def note(job: Job, ended: Ended) -> None:
            told[job.name] = ended

        run_on_workers(jobs("one", "bad", "two"), 2, note, deployment=DEPLOYMENT)

    parent()
    assert {name: ended.reason for name, ended in told.items()} == {
        "one": "",
        "bad": "there is no subject in it",
        "two": "",
    }


@pytest.mark.timeout(900)
@pytest.mark.parametrize("at_once", [1, 2])
def test_as_many_as_asked_for_are_submitted_at_once(served: None, at_once: int) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client

    from flows.many_runs import run_on_workers

    names = [f"{word}-of-{at_once}" for word in ("first", "second", "third")]

    @flow
    def parent() -> None:
        run_on_workers(jobs(*names), at_once, lambda _job, _ended: None, deployment=DEPLOYMENT)

    parent()
    with get_client(sync_client=True) as client:
        runs = [run for run in client.read_flow_runs(limit=200) if run.name in names]
    assert len(runs) == len(names)
    assert max(sum(other.created <= run.created < other.end_time for other in runs) for run in runs) == at_once


@pytest.mark.timeout(900)
def test_an_interrupted_batch_cancels_what_runs(served: None) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client

    from flows.many_runs import Ended, run_on_workers

    @flow
    def parent() -> None:
        def interrupt(job: Job, ended: Ended) -> None:
            raise KeyboardInterrupt

        run_on_workers(jobs("slow", "quick"), 2, interrupt, deployment=DEPLOYMENT)

    with pytest.raises(KeyboardInterrupt):
        parent()
    with get_client(sync_client=True) as client:

        def cancelled() -> bool:
            (slow,) = [run for run in client.read_flow_runs(limit=200) if run.name == "slow"]
            return str(slow.state_name) == "Cancelled"

        assert until(cancelled)


def test_a_run_that_was_deleted_has_ended_and_a_server_that_is_away_has_not(state: StateFolder) -> None:
    from prefect.client.orchestration import get_client

    from flows.many_runs import _ended, _is_away

    with get_client(sync_client=True) as client:
        ended = _ended(client, uuid4())
    assert ended is not None
    assert "deleted" in ended.reason
    with pytest.raises(httpx.HTTPError) as caught:
        httpx.get("http://127.0.0.1:9/")
    assert _is_away(caught.value)


def test_an_unknown_deployment_is_told_with_those_there_are(served: None) -> None:
    from flows.many_runs import run_on_workers

    with pytest.raises(ConfigError, match=r"nobody/knows.*served"):
        run_on_workers([], 1, lambda _job, _ended: None, deployment="nobody/knows")


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"base": {"source": "a/b"}}, r"has base\.source 'a/b'; got base\.source 'pocket' for one; .*--set"),
        ({"method": {"name": "lora"}}, r"has method\.name 'lora'; got method\.name 'set_and_sequence' for one; .*"),
    ],
)
def test_a_deployment_for_another_base_or_method_than_a_job_is_refused(
    state: StateFolder, declared: dict[str, dict[str, str]], said: str
) -> None:
    from prefect.client.orchestration import get_client

    from flows.many_runs import _check_deployment, run_on_workers

    with get_client(sync_client=True) as client:
        flow_id = client.create_flow_from_name("pretend")
        client.create_deployment(flow_id, "named", parameters={"config": declared})
        with pytest.raises(ConfigError, match=said):
            run_on_workers(jobs("one"), 1, lambda _job, _ended: None, deployment="pretend/named")
        (fits,) = jobs("one")
        same = replace(fits, config=RunConfig.model_validate({**fits.config.model_dump(), **declared}))
        _check_deployment(client, "pretend/named", [same])


def test_runs_beside_each_other_share_the_cores_unless_somebody_has_said_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from flows.many_runs import THREADS, _shared_cores

    monkeypatch.delenv(THREADS, raising=False)
    with _shared_cores(os.cpu_count() or 1):
        assert os.environ[THREADS] == "1"
    assert THREADS not in os.environ
    monkeypatch.setenv(THREADS, "3")
    with _shared_cores(2):
        assert os.environ[THREADS] == "3"
    assert os.environ[THREADS] == "3"
