"""What the end of a flow run means for its drop, by the words that Prefect itself uses."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from flows.cli.watch import drops_template
from flows.ingest import LOCK_FILE, outcome_of, watch_inbox
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
        (ResourceError("disk full"), Outcome()),
    ],
)
def test_a_finished_run(state: StateFolder, error: Exception | None, outcome: Outcome) -> None:
    from prefect import flow

    @flow
    def ends() -> None:
        if error is not None:
            raise error

    ended = ends(return_state=True)
    assert outcome_of(ended.type.value, ended.message or "") == outcome


def test_a_cancelled_run_gives_its_drop_back_and_a_crashed_one_keeps_it() -> None:
    assert outcome_of("CANCELLED", "").ended == "refused"
    assert outcome_of("CRASHED", "MediaError: no") == Outcome()
    assert outcome_of("RUNNING", "") == Outcome()


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
