"""Makes a Prefect server know all that `prefect.yaml` and this folder declare; again and again, with the same end.

    python -m deployments.apply

The server is the one of PREFECT_API_URL. What people change in its UI stays: limits of pools and deployments, what is
switched on or off, schedules of their own. Parameters and descriptions of a deployment are the file's.

Limits are the server's and not a worker's: a worker with a limit of its own dies when a run is retried whose former
process has not quite ended (Prefect 3.8).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.automations import (
    CONTAINER_START,
    START,
    failures,
    set_automation,
    set_triggers,
    unstarted,
    zombies,
)
from deployments.check import checked_deployments, declared_deployments, flow_of
from deployments.schedules import declared_schedules, wanted
from pipeline_lib.errors import ResourceError

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient

POOL, LIGHT_POOL = "gpu", "light"
LIGHT_LIMIT = 4
TRAINING_FLOW = "personalize"
TRAINING_LIMIT = "gpu"  # stages that train at once, over all machines of the server
PREFECT_FILE = Path(__file__).resolve().parents[1] / "prefect.yaml"


def apply(prefect_file: Path = PREFECT_FILE, *, at_once: int | None = None, notify: str = "") -> None:
    """Applies everything.

    Args:
        prefect_file: declares the deployments.
        at_once: runs in the pool of those that load models, runs of each deployment there that trains, and stages
            that train; None leaves all three as they are, 1 on a server that has no such limits yet.
        notify: notification block, `type/name`, that is told of failed runs; empty leaves that as it is.

    Raises:
        ConfigError: there is no such file or block, or a deployment does not fit the code.
        ResourceError: the server refused, or is not there; its words are in the message.
    """
    import httpx

    checked_deployments(prefect_file)
    try:
        asyncio.run(_apply(declared_deployments(prefect_file), at_once, notify))
    except httpx.HTTPError as error:
        raise ResourceError(f"the deployments could not be applied: {' '.join(str(error).split())[:800]}") from error


async def _apply(deployments: list[dict[str, Any]], at_once: int | None, notify: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate, WorkPoolUpdate

    async with get_client() as client:
        await _set_pool(client, POOL, "Runs that load models: training, samples, scores.", limit=1)
        await _set_pool(client, LIGHT_POOL, "Runs that start others and wait: no accelerator needed.", LIGHT_LIMIT)
        await _set_training_limit(client)
        if at_once is not None:
            await client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=at_once))
            await client.update_global_concurrency_limit(TRAINING_LIMIT, GlobalConcurrencyLimitUpdate(limit=at_once))
        for automation in (zombies(), unstarted(await _longest_start(client))):
            await set_automation(client, automation)
        if notify:
            await set_automation(client, await failures(client, notify))
        for item in deployments:  # in turn: all at once takes ten times as long on SQLite
            await set_triggers(client, await _set_deployment(client, item, at_once), item.get("triggers", []))


async def _set_pool(client: PrefectClient, name: str, description: str, limit: int) -> None:
    """A pool that is there stays as it is: people set its limit, and a team makes it one of containers."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    pool = WorkPoolCreate(
        name=name,
        type=ProcessWorker.type,
        description=description,
        concurrency_limit=limit,
        base_job_template=ProcessWorker.get_default_base_job_template(),  # else every worker's first act writes it
    )
    with suppress(ObjectAlreadyExists):
        await client.create_work_pool(pool)


async def _longest_start(client: PrefectClient) -> timedelta:
    """Of runs in the slower one of the pools."""
    from prefect.workers.process import ProcessWorker

    types = {(await client.read_work_pool(name)).type for name in (POOL, LIGHT_POOL)}
    return START if types == {ProcessWorker.type} else CONTAINER_START


async def _set_training_limit(client: PrefectClient) -> None:
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.exceptions import ObjectNotFound

    try:
        await client.read_global_concurrency_limit_by_name(TRAINING_LIMIT)
    except ObjectNotFound:
        await client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=TRAINING_LIMIT, limit=1))


async def _set_deployment(client: PrefectClient, item: dict[str, Any], at_once: int | None) -> UUID:
    from prefect.client.schemas.objects import ConcurrencyOptions
    from prefect.exceptions import ObjectNotFound
    from prefect.utilities.callables import parameter_schema

    flow = flow_of(item)
    try:
        there = await client.read_deployment_by_name(f"{flow.name}/{item['name']}")
    except ObjectNotFound:
        there = None
    trains = flow.name == TRAINING_FLOW and item["work_pool"]["name"] == POOL
    limit = dict(item.get("concurrency_limit", {}))
    declared, known = limit.pop("limit", None), there.global_concurrency_limit if there else None
    return await client.create_deployment(
        await client.create_flow(flow),
        item["name"],
        entrypoint=item["entrypoint"],
        description=item["description"],
        tags=item["tags"],
        parameters=item.get("parameters", {}),
        parameter_openapi_schema=parameter_schema(flow).model_dump(exclude_unset=True),
        enforce_parameter_schema=True,
        schedules=wanted(declared_schedules(item), there.schedules if there else []),
        paused=there.paused if there else False,
        concurrency_limit=(at_once if trains else None) or (known.limit if known else None if there else declared),
        concurrency_options=ConcurrencyOptions(**limit) if limit else None,
        work_pool_name=item["work_pool"]["name"],
        job_variables=item["work_pool"]["job_variables"],
        pull_steps=[],
    )


if __name__ == "__main__":
    apply()
