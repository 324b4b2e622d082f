"""What a server knows after `apply`: the same after the second time, and what people changed stays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.apply import LIGHT_LIMIT, LIGHT_POOL, POOL, TRAINING_FLOW, TRAINING_LIMIT, apply
from deployments.automations import CONTAINER_START, FAILURES, START, UNSTARTED, ZOMBIES
from pipeline_lib.errors import ConfigError
from pipeline_lib.steps.state import StateFolder
from tasks.turn import LIMIT
from tests.conftest import REPOSITORY

NIGHTLY = {"slug": "nightly", "cron": "0 2 * * *", "timezone": "Europe/Berlin", "active": False}
TRIGGER = {"name": "a test's event", "type": "event", "expect": ["mannerism.test"], "parameters": {"config": {}}}
ENTRYPOINT = "tests.flows.small_flow.small"
FULL_NAME = "small/of-a-test"


def ask(question: Callable[[Any], Awaitable[Any]]) -> Any:
    """What a question to the server's client answers."""
    from prefect.client.orchestration import get_client

    async def answer() -> Any:
        async with get_client() as client:
            return await question(client)

    return asyncio.run(answer())


def deployed(name: str = FULL_NAME) -> Any:
    return ask(lambda client: client.read_deployment_by_name(name))


def automations() -> dict[str, Any]:
    found = ask(lambda client: client.read_automations())
    names = [item.name for item in found]
    assert len(names) == len(set(names)), names
    return {item.name: item for item in found}


def schedules() -> dict[str | None, Any]:
    return {item.slug: item for item in deployed().schedules}


@pytest.fixture
def declare(state: StateFolder, tmp_path: Path) -> Callable[..., None]:
    """Applies a file with one deployment."""

    def declare(*, notify: str = "", at_once: int | None = None, **more: Any) -> None:
        entry = {
            "name": FULL_NAME.partition("/")[2],
            "description": "Of a test.",
            "tags": ["test"],
            "entrypoint": ENTRYPOINT,
            "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
            "work_pool": {"name": POOL, "job_variables": {"env": {"WHO": "test"}}},
            **more,
        }
        path = tmp_path / "prefect.yaml"
        path.write_text(yaml.safe_dump({"deployments": [entry]}))
        apply(path, at_once=at_once, notify=notify)

    return declare


def test_twice_is_once(declare: Callable[..., None]) -> None:
    for _ in range(2):
        declare(schedules=[NIGHTLY], triggers=[TRIGGER], parameters={"config": {"seed": 3}})
    assert {ZOMBIES, TRIGGER["name"]} <= automations().keys()
    there = deployed()
    assert there.parameters == {"config": {"seed": 3}}
    assert there.enforce_parameter_schema
    assert there.entrypoint == ENTRYPOINT
    assert there.work_pool_name == POOL
    assert there.job_variables == {"env": {"WHO": "test"}}
    assert there.global_concurrency_limit.limit == 1
    assert there.concurrency_options.collision_strategy == "ENQUEUE"
    (nightly,) = there.schedules
    assert (nightly.slug, nightly.active, nightly.schedule.cron) == ("nightly", False, "0 2 * * *")
    assert nightly.schedule.timezone == "Europe/Berlin"


def test_limits_that_people_set_stay(declare: Callable[..., None]) -> None:
    from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate, WorkPoolUpdate

    assert TRAINING_LIMIT == LIMIT
    declare()
    assert ask(lambda client: client.read_work_pool(LIGHT_POOL)).concurrency_limit == LIGHT_LIMIT
    assert ask(lambda client: client.read_work_pool(POOL)).concurrency_limit == 1
    containers = json.loads((REPOSITORY / "deployments" / "kubernetes" / "pool.json").read_text())
    ours = WorkPoolUpdate(concurrency_limit=7, description="ours", base_job_template=containers)
    ask(lambda client: client.update_work_pool(POOL, ours))
    ask(lambda client: client.update_global_concurrency_limit(TRAINING_LIMIT, GlobalConcurrencyLimitUpdate(limit=3)))
    declare()
    pool = ask(lambda client: client.read_work_pool(POOL))
    assert (pool.concurrency_limit, pool.description, pool.type) == (7, "ours", "process")
    assert pool.base_job_template == containers
    assert ask(lambda client: client.read_global_concurrency_limit_by_name(TRAINING_LIMIT)).limit == 3
    declare(at_once=2)
    assert ask(lambda client: client.read_work_pool(POOL)).concurrency_limit == 2
    assert ask(lambda client: client.read_global_concurrency_limit_by_name(TRAINING_LIMIT)).limit == 2


def test_the_file_says_what_and_when_and_people_whether(declare: Callable[..., None]) -> None:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    declare(schedules=[NIGHTLY])
    there = deployed()
    ask(lambda client: client.update_deployment_schedule(there.id, there.schedules[0].id, active=True))
    own = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 4 * * 0", timezone="UTC"), active=True)
    ask(lambda client: client.create_deployment_schedules(there.id, [own]))

    declare(schedules=[{**NIGHTLY, "cron": "30 1 * * *"}])
    assert schedules().keys() == {"nightly", None}
    assert schedules()["nightly"].active
    assert schedules()["nightly"].schedule.cron == "30 1 * * *"
    assert schedules()[None].schedule.cron == "0 4 * * 0"
    assert schedules()[None].active

    declare()
    assert schedules().keys() == {None}


def test_a_run_that_never_begins_is_given_up_sooner_as_a_process_than_as_a_container(
    declare: Callable[..., None],
) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate

    declare()
    assert automations()[UNSTARTED].trigger.within == START
    former = ask(lambda client: client.read_work_pool(LIGHT_POOL))
    containers = WorkPoolCreate(name=LIGHT_POOL, type="docker", base_job_template=former.base_job_template)
    ask(lambda client: client.delete_work_pool(LIGHT_POOL))
    ask(lambda client: client.create_work_pool(containers))
    try:
        declare()
        assert automations()[UNSTARTED].trigger.within == CONTAINER_START
    finally:
        ask(lambda client: client.delete_work_pool(LIGHT_POOL))
        declare()
    assert automations()[UNSTARTED].trigger.within == START


def test_what_people_switched_off_stays_off(declare: Callable[..., None]) -> None:
    declare(triggers=[TRIGGER])
    there = deployed()
    zombies, trigger = (automations()[name].id for name in (ZOMBIES, TRIGGER["name"]))
    ask(lambda client: client.pause_automation(zombies))
    ask(lambda client: client.pause_automation(trigger))
    ask(lambda client: client.pause_deployment(there.id))
    try:
        declare(triggers=[TRIGGER])
        assert not automations()[ZOMBIES].enabled
        assert not automations()[TRIGGER["name"]].enabled
        assert deployed().paused
    finally:
        ask(lambda client: client.resume_automation(zombies))
        ask(lambda client: client.resume_deployment(there.id))
    declare()
    assert TRIGGER["name"] not in automations()
    assert not deployed().paused


def test_failed_runs_are_told_to_a_block(declare: Callable[..., None]) -> None:
    from prefect.blocks.notifications import SlackWebhook

    with pytest.raises(ConfigError, match="no block 'slack-webhook/of-a-test'"):
        declare(notify="slack-webhook/of-a-test")
    saved = SlackWebhook(url="http://127.0.0.1:9/nobody").save("of-a-test")
    declare(notify="slack-webhook/of-a-test")
    declare()  # says nothing of it, so it stays
    (action,) = automations()[FAILURES].actions
    assert action.block_document_id == saved


def test_runs_of_a_training_deployment_at_once_are_what_was_asked_for_or_what_people_set(
    declare: Callable[..., None],
) -> None:
    from prefect.client.schemas.actions import DeploymentUpdate

    name = f"{TRAINING_FLOW}/of-a-test"
    trains = {"entrypoint": "flows.personalize.personalize"}

    def at_once(name: str = name) -> int:
        return int(deployed(name).global_concurrency_limit.limit)

    declare(**trains)
    assert at_once() == 1
    for asked, there in ((3, 3), (None, 3), (2, 2)):
        declare(**trains, at_once=asked)
        assert at_once() == there
    there = deployed(name).id
    ask(lambda client: client.update_deployment(there, DeploymentUpdate(concurrency_limit=5)))
    declare(**trains)
    assert at_once() == 5
    declare(**trains, at_once=2, work_pool={"name": LIGHT_POOL, "job_variables": {}})
    assert at_once() == 5, "what waits in the other pool is not meant"
    declare(at_once=2)
    assert at_once(FULL_NAME) == 1, "nor what trains nothing"
