"""Turns at training on a real Prefect server: a slot held, a limit that is missing, a server that refuses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.errors import ResourceError
from pipeline_lib.steps.state import StateFolder
from tasks import turn as turns
from tasks.session import RunSession, opened
from tests.steps.tiny import small_clip, tiny_config


@pytest.fixture
def client(state: StateFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Of the server, which has the limit, and which this process is told of as a worker's is."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(turns.LIMIT, 1)
        yield client
        client.upsert_global_concurrency_limit_by_name(turns.LIMIT, 1)


def taken(client: Any) -> int:
    return int(client.read_global_concurrency_limit_by_name(turns.LIMIT).active_slots)


def test_a_turn_holds_a_slot_and_gives_it_back(client: Any) -> None:
    with turns.turn():
        assert taken(client) == 1
    assert taken(client) == 0
    with pytest.raises(ZeroDivisionError), turns.turn():
        _ = 1 / 0
    assert taken(client) == 0


def test_a_limit_that_somebody_deleted_is_told_at_once_with_the_fix(client: Any) -> None:
    client.delete_global_concurrency_limit_by_name(turns.LIMIT)
    start = time.monotonic()
    with pytest.raises(ResourceError, match=r"no concurrency limit 'gpu'; make it: mannerism up"), turns.turn():
        pass
    assert time.monotonic() - start < sum(turns.PAUSES) / 2, "it was asked for again and again"


def test_a_server_that_refuses_is_asked_again_and_is_no_missing_limit(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError

    client.upsert_global_concurrency_limit_by_name(turns.LIMIT, 0)
    monkeypatch.setattr(turns, "PAUSES", (0.5,))
    start = time.monotonic()
    with pytest.raises(ConcurrencySlotAcquisitionError, match="Unable to acquire"), turns.turn():
        pass
    assert time.monotonic() - start > 0.5


def test_without_a_server_nobody_waits(state: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with turns.turn(), turns.turn():
        pass


def test_a_stage_trains_in_its_turn_and_nothing_else_does(client: Any, tiny_folder: Path, tmp_path: Path) -> None:
    from prefect import flow

    from tasks.caption import caption
    from tasks.encode import encode
    from tasks.plan import plan
    from tasks.prepare import prepare
    from tasks.train import train

    @flow
    def road() -> None:
        clips = prepare()
        planned = plan(clips)
        captions = caption(clips)
        data = {"captions": captions, "data": encode(clips, captions)}
        train(planned.stages[0], data)

    seen: dict[str, int] = {}

    def note(event: dict[str, Any]) -> None:
        if event["event"] == "done":
            seen[event["step"]] = taken(client)

    settings = ("method.name=lora", "method.settings={rank: 2, steps: 2, batch: 2}", "tracking.mlflow=false")
    clip = small_clip(tmp_path / "red.mp4")
    config = tiny_config(tiny_folder, [clip], *settings)
    with opened(RunSession(config, StateFolder.open(), note)):
        road()
    assert seen == {"prepare": 0, "caption": 0, "encode": 0, "train-lora": 1}
    assert taken(client) == 0
