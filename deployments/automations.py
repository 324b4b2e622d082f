"""What a server does by itself: takes note of dead runs, tells people about failed ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from flows.environment import HEARTBEAT_SECONDS
from pipeline_lib.errors import ConfigError

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.automations import AutomationCore
    from prefect.client.orchestration import PrefectClient
    from prefect.events import DeploymentTriggerTypes

ZOMBIES = "mannerism: runs whose process is gone"
FAILURES = "mannerism: tell of failed runs"
UNSTARTED = "mannerism: runs that were taken and never began"
SILENCE = timedelta(seconds=3 * HEARTBEAT_SECONDS)
START, CONTAINER_START = timedelta(minutes=3), timedelta(minutes=10)
"""How long a run may take to begin: as a process, and as a container, whose image a node may have to fetch."""
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended")


async def set_automation(client: PrefectClient, wanted: AutomationCore) -> None:
    """Makes a server have an automation once; one that a person switched off stays off.

    Args:
        client: of the server.
        wanted: found again by its name.
    """
    found = await client.read_automations_by_name(wanted.name)
    if not found:
        await client.create_automation(wanted)
        return
    for extra in found[1:]:
        await client.delete_automation(extra.id)
    await client.update_automation(found[0].id, wanted.model_copy(update={"enabled": found[0].enabled}))


async def set_triggers(client: PrefectClient, deployment: UUID, triggers: Sequence[dict[str, Any]]) -> None:
    """Makes a deployment have exactly these triggers; one that a person switched off stays off.

    Args:
        client: of the server.
        deployment: its id.
        triggers: as `prefect.yaml` has them, each with a name.

    Raises:
        ConfigError: one that is none.
    """
    related = await client.read_resource_related_automations(f"prefect.deployment.{deployment}")
    there = {item.name: item for item in related}
    for trigger in checked_triggers(triggers):
        trigger.set_deployment_id(deployment)
        wanted = trigger.as_automation()
        former = there.pop(wanted.name, None)
        if former is None:
            await client.create_automation(wanted)
        else:  # never away for a moment: events would be lost
            fields = wanted.model_fields_set - {"owner_resource"}  # which an update may not even repeat
            kept = {name: getattr(wanted, name) for name in fields} | {"enabled": former.enabled}
            await client.update_automation(former.id, type(wanted).model_construct(set(kept), **kept))
    for surplus in there.values():
        await client.delete_automation(surplus.id)


def checked_triggers(triggers: Sequence[dict[str, Any]]) -> list[DeploymentTriggerTypes]:
    """Triggers as Prefect understands them.

    Args:
        triggers: as `prefect.yaml` has them.

    Returns:
        One each.

    Raises:
        ConfigError: no name, or nothing that Prefect could understand.
    """
    from prefect.events import DeploymentTriggerTypes

    made: list[DeploymentTriggerTypes] = []
    for item in triggers:
        if not item.get("name"):
            raise ConfigError("a trigger has no name", fix="give it one: a server finds it again by that")
        try:
            made.append(TypeAdapter(DeploymentTriggerTypes).validate_python(item))
        except ValidationError as error:
            raise ConfigError(f"trigger {item['name']}", got=" ".join(str(error).split())) from error
    return made


def zombies(silence: timedelta = SILENCE) -> AutomationCore:
    """A flow run whose heartbeats have stopped is Crashed, so that it can be retried and holds no slot.

    Args:
        silence: after a heartbeat, until that is so.

    Returns:
        The automation.
    """
    return _crashed_after(
        ZOMBIES,
        "prefect.flow-run.heartbeat",
        {"prefect.flow-run.heartbeat", *_events(*_ENDS)},
        silence,
        f"no heartbeat for {silence.total_seconds():.0f} s: the process was killed, or its machine is gone",
    )


def unstarted(wait: timedelta = START) -> AutomationCore:
    """A flow run that was taken by a worker that died then is Crashed: no other takes it, and it holds a slot.

    Args:
        wait: from the worker's word that it has the run to that of its process that it runs.

    Returns:
        The automation.
    """
    return _crashed_after(
        UNSTARTED,
        "prefect.flow-run.Pending",
        _events("Running", "Scheduled", "AwaitingRetry", "AwaitingConcurrencySlot", "Cancelling", *_ENDS),
        wait,
        f"not running {wait.total_seconds():.0f} s after a worker took it: the worker died, or could not start it",
    )


def _events(*states: str) -> set[str]:
    return {f"prefect.flow-run.{state}" for state in states}


def _crashed_after(name: str, after: str, expect: set[str], within: timedelta, why: str) -> AutomationCore:
    from prefect.automations import AutomationCore
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture

    return AutomationCore(
        name=name,
        description=f"{why[0].upper()}{why[1:]}.",
        trigger=EventTrigger(
            after={after},
            expect=expect,
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[ChangeFlowRunState(name=None, state=StateType.CRASHED, message=why, force=False)],
    )


async def failures(client: PrefectClient, block: str) -> AutomationCore:
    """Whoever is behind a notification block is told of runs that failed or crashed.

    Args:
        client: of the server that has the block.
        block: `type/name` as the UI's page of blocks has them, e.g. `slack-webhook/team`.

    Returns:
        The automation.

    Raises:
        ConfigError: no such block.
    """
    from prefect.automations import AutomationCore
    from prefect.events.actions import SendNotification
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.exceptions import ObjectNotFound

    kind, _, name = block.partition("/")
    try:
        document = await client.read_block_document_by_name(name, kind)
    except ObjectNotFound:
        raise ConfigError(
            f"the server has no block {block!r}", expected="TYPE/NAME, e.g. slack-webhook/team", fix="make it in the UI"
        ) from None
    return AutomationCore(
        name=FAILURES,
        description="Change whom it tells with `up --notify`.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            SendNotification(
                block_document_id=document.id,
                subject="{{ flow_run.name }}: {{ flow_run.state.name }}",
                body="{{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
            )
        ],
    )
