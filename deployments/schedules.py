"""Schedules of a deployment: declared in `prefect.yaml`, switched on and off by people, who may have some of their own.

`prefect deploy` leaves a schedule on the server that was taken out of the file, switches one off again that a person
had switched on, and deletes those that people made in the UI (they have no slug). Here the file says what and when,
and the server knows whether.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipeline_lib.errors import ConfigError

if TYPE_CHECKING:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.objects import DeploymentSchedule

_KEYS = {"slug", "cron", "timezone"}


def declared_schedules(deployment: Mapping[str, Any]) -> list[DeploymentScheduleCreate]:
    """Schedules of one deployment of the file.

    Args:
        deployment: its entry; each of its `schedules` has a slug, cron and time zone, and may have `active` and
            `parameters`.

    Returns:
        What a server is told.

    Raises:
        ConfigError: something is missing, unknown, or no cron line or time zone.
    """
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    made: list[DeploymentScheduleCreate] = []
    for item in deployment.get("schedules", ()):
        if not _KEYS <= item.keys() <= _KEYS | {"active", "parameters"}:
            raise ConfigError(
                f"{deployment['name']}: a schedule", got=", ".join(item), expected="slug, cron, timezone, active"
            )
        try:
            cron = CronSchedule(cron=item["cron"], timezone=item["timezone"])
        except ValidationError as error:
            raise ConfigError(f"{deployment['name']}: schedule {item['slug']}", got=error.errors()[0]["msg"]) from error
        made.append(
            DeploymentScheduleCreate(
                schedule=cron,
                slug=item["slug"],
                active=item.get("active", True),
                parameters=item.get("parameters", {}),
            )
        )
    return made


def wanted(
    declared: Sequence[DeploymentScheduleCreate], before: Sequence[DeploymentSchedule]
) -> list[DeploymentScheduleCreate]:
    """What a deployment should end with.

    Args:
        declared: in the file; `active` counts for those that the server does not know yet.
        before: on the server.

    Returns:
        The declared ones, on or off as they were, and those without a slug: people made them.
    """
    from prefect.client.schemas.actions import DeploymentScheduleCreate

    known = {item.slug: item.active for item in before if item.slug}
    kept = [item.model_copy(update={"active": known.get(str(item.slug), item.active)}) for item in declared]
    fields = set(DeploymentScheduleCreate.model_fields) & {"schedule", "active", "max_scheduled_runs", "parameters"}
    people = [
        DeploymentScheduleCreate(**{name: getattr(item, name) for name in fields}) for item in before if not item.slug
    ]
    return [*kept, *people]
