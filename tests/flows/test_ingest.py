"""What the end of a flow run means for its drop, by the words that Prefect itself uses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from flows.cli.watch import drops_template
from flows.ingest import CRASHED_SECONDS, LOCK_FILE, PrefectDispatcher, outcome_of, watch_inbox
from flows.services import Ports, watcher
from pipeline_lib.drops.heartbeat import Heartbeat
from pipeline_lib.drops.intake import Outcome
from pipeline_lib.drops.places import drops_home
from pipeline_lib.errors import ConfigError, InputError, MediaError, ResourceError
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.state import StateFolder


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, Outcome("well")),
        (
            MediaError("wolf.mp4 is too dark", fix="film by day"),
            Outcome("refused", "wolf.mp4 is too dark; film by day"),
        ),
        (ResourceError("disk full"), Outcome("failed", "Flow run encountered an exception: ResourceError: disk full")),
    ],
)
def test_a_finished_run(state: StateFolder, error: Exception | None, outcome: Outcome) -> None:
    from prefect import flow

    @flow
    def ends() -> None:
        if error is not None:
            raise error

    assert outcome_of(ends(return_state=True)) == outcome


def test_a_cancelled_run_gives_its_drop_back_and_a_crashed_one_keeps_it() -> None:
    from prefect.states import Cancelled, Crashed, Failed, Running

    now = datetime.now(UTC)
    long_ago = now - timedelta(seconds=CRASHED_SECONDS)
    assert outcome_of(Cancelled()).ended == "refused"
    assert outcome_of(Crashed(message="MediaError: no", timestamp=long_ago)) == Outcome("crashed")
    assert outcome_of(Crashed(timestamp=now)) == Outcome()  # it may be told once more
    asked = "Execution was aborted by a termination signal."
    assert outcome_of(Crashed(message=asked, timestamp=long_ago)) == Outcome("stopped")
    away = "Flow run encountered an exception: UnreachableError: the hub"
    assert outcome_of(Failed(message=away, timestamp=long_ago)) == Outcome("crashed")
    assert outcome_of(Failed(message=away, timestamp=now)) == Outcome()
    assert outcome_of(Running()) == Outcome()


def test_a_retry_is_the_one_of_the_ui_and_left_alone_where_a_person_was_quicker(state: StateFolder) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Crashed

    from tests.flows.small_flow import small

    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(flow_id=client.create_flow(small), name="of-drops")
        run = client.create_flow_run_from_deployment(deployment).id

        def now() -> Any:
            return client.read_flow_run(run).state

        client.set_flow_run_state(run, Crashed(), force=True)
        assert PrefectDispatcher().retry(str(run))
        asked = now()
        assert (asked.type.value, asked.name) == ("SCHEDULED", "AwaitingRetry")
        assert not PrefectDispatcher().retry(str(run))
        assert now().id == asked.id


def test_an_inbox_has_one_watcher(tmp_path: Path) -> None:
    with FileLock(tmp_path / LOCK_FILE), pytest.raises(ConfigError, match="watched already"):
        watch_inbox(str(tmp_path), tmp_path, RunConfig(), print)


@pytest.mark.parametrize(
    "said", ["base: {source: /no/such/base}", "method: {preset: grand}", "concept: {inputs: [a.mp4]}"]
)
def test_a_config_that_no_drop_could_use_is_told_before_drops_are_refused_for_it(tmp_path: Path, said: str) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(said)
    with pytest.raises(InputError):
        drops_template(str(file))


def test_a_watcher_is_ready_by_its_own_sign_of_life_and_not_a_dead_one_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANNERISM_STATE", str(tmp_path / "state"))
    for place in (str(tmp_path / "mine"), "s3://bucket/team"):
        home = drops_home(place, StateFolder.open())
        home.mkdir(parents=True)
        Heartbeat(home).beat()
        service = watcher(Ports(), place)
        assert not service.ready()
        Heartbeat(home).beat()
        assert service.ready()
        assert place in service.command
