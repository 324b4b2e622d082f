"""What Prefect's UI shows beside the states, and that nothing of it can end a run."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

import pytest

from flows.review import Review
from pipeline_lib.errors import ConfigError
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.state import StateFolder
from tasks.courtesy import courtesy
from tasks.progress import EVERY_SECONDS, Progress, key_of
from tasks.show import plain
from tests.flows.conftest import CommandRun


def artifacts() -> dict[str, Any]:
    """The server's latest artifact of each key."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return {item.key: item for item in client.read_latest_artifacts() if item.key}


def artifacts_of(report: str) -> dict[str, Any]:
    """Those of the first flow run that made a report; others on this server may have found the same steps since."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        every = sorted(client.read_artifacts(), key=lambda item: str(item.created))
    maker = next(item.flow_run_id for item in every if item.key == "result" and report in item.data)
    return {item.key: item for item in every if item.flow_run_id == maker and item.key}


def test_a_run_shows_stages_samples_scores_and_where_all_is(command_run: CommandRun) -> None:
    shown = artifacts_of(command_run.result["report"])
    for stage in ("identity", "motion"):
        assert "| validation loss |" in shown[f"stage-{stage}"].data
        assert re.search(r"4 steps on (frames|clips), in ", shown[f"stage-{stage}"].description)
    for model in ("base", "personalised"):
        assert "](data:image/webp;base64," in shown[f"samples-{model}"].data
    assert "on the beach" in shown["samples-base"].data
    assert command_run.result["report"] in shown["result"].data
    assert "metric" in shown["scores"].data


def test_progress_is_one_bar_a_step_that_moves(state: StateFolder) -> None:
    from prefect import flow

    listener = Progress()

    def tell(done: int) -> None:
        listener.on_event({"event": "progress", "step": "train-x", "done": done, "total": 400, "seconds": 3.0})

    @flow
    def watched() -> list[Any]:
        seen = []
        for done in (100, 200):
            end = time.monotonic() + 60  # the slower the server, the seldomer it is told
            while (shown := artifacts().get("progress-train-x")) is None or shown.data != done / 4:
                assert time.monotonic() < end
                tell(done)
                time.sleep(EVERY_SECONDS / 4)
            seen.append(shown)
        listener.on_event({"event": "done", "step": "train-x", "found": False, "seconds": 9.0, "figures": {"loss": 1}})
        return [*seen, artifacts()["progress-train-x"]]

    first, second, last = watched()
    assert first.id == second.id == last.id
    assert [item.data for item in (first, second, last)] == [25.0, 50.0, 100.0]
    assert first.description == "**train-x**: 100 of 400 steps, 15 min left"
    assert last.description.startswith("**train-x**: 400 steps in ")


def test_a_server_that_is_away_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    from prefect.artifacts import create_markdown_artifact
    from prefect.settings import PREFECT_API_URL, temporary_settings

    nowhere = temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"})
    with caplog.at_level(logging.WARNING), nowhere, courtesy("the stage"):
        create_markdown_artifact("text", key="stage")
    assert "the stage could not be shown" in caplog.text


def test_our_own_mistakes_are_not_courtesies() -> None:
    with pytest.raises(KeyError), courtesy("x"):
        raise KeyError("ours")


def test_words_of_strangers_stay_words() -> None:
    told = plain("a <img src=x onerror=y> | [b](javascript:c) `d` ![e](f)\n# g")
    assert "<" not in told
    assert "|" not in told
    assert not re.search(r"(?<!\\)[\[\]`]", told)
    assert "\n" not in told


def test_keys_are_what_prefect_takes() -> None:
    assert key_of("train-My Stage_2") == "train-my-stage-2"


@pytest.mark.parametrize("asked", [Review(captions=True), Review(samples=True)])
def test_a_review_without_a_deployment_is_refused_before_anything_starts(state: StateFolder, asked: Review) -> None:
    from flows.personalize import personalize

    before = set(state.run_names())
    with pytest.raises(ConfigError, match="start the run from a deployment"):
        personalize(RunConfig(), asked)
    assert set(state.run_names()) == before
