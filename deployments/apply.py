"""Makes a Prefect server know all that `prefect.yaml` and this folder declare; again and again, with the same end.

    python -m deployments.apply

The server is the one of PREFECT_API_URL. The pool comes first, since deployments refer to it.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from flows.environment import HEARTBEAT_SECONDS
from pipeline_lib.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    from prefect.automations import AutomationCore
    from prefect.client.orchestration import PrefectClient

POOL = "mannerism"
ZOMBIES = "mannerism: runs whose process is gone"
_SILENCE = timedelta(seconds=3 * HEARTBEAT_SECONDS)
PREFECT_FILE = Path(__file__).resolve().parents[1] / "prefect.yaml"


def apply(prefect_file: Path = PREFECT_FILE) -> None:
    """Applies everything.

    Args:
        prefect_file: declares the deployments; entrypoints are relative to its folder.

    Raises:
        ConfigError: there is no such file, or a deployment does not fit the code.
        ResourceError: the server refused; its words are in the message.
    """
    from deployments.check import checked_deployments

    if not prefect_file.is_file():
        raise ConfigError(f"there is no {prefect_file}", fix="deployments are applied from a clone of the project")
    checked_deployments(prefect_file)
    asyncio.run(_apply_pool_and_automation())
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", prefect_file.name]
    done = subprocess.run(command, cwd=prefect_file.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ResourceError(f"prefect deploy failed: {' '.join((done.stdout + done.stderr).split())[-800:]}")


async def _apply_pool_and_automation() -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    async with get_client() as client:
        await client.create_work_pool(WorkPoolCreate(name=POOL, type="process"), overwrite=True)
        await _apply_automation(client)


async def _apply_automation(client: PrefectClient) -> None:
    found = await client.read_automations_by_name(ZOMBIES)
    wanted = zombies()
    if not found:
        await client.create_automation(wanted)
        return
    for extra in found[1:]:
        await client.delete_automation(extra.id)
    await client.update_automation(found[0].id, wanted)


def zombies() -> AutomationCore:
    """A flow run whose heartbeats have stopped is Crashed, so that it can be retried and holds no slot."""
    from prefect.automations import AutomationCore
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture

    return AutomationCore(
        name=ZOMBIES,
        description=f"No heartbeat for {_SILENCE.seconds} s: the process was killed, or its machine is gone.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={
                "prefect.flow-run.heartbeat",
                *(
                    f"prefect.flow-run.{state}"
                    for state in ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended")
                ),
            },
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=_SILENCE,
        ),
        actions=[ChangeFlowRunState(name=None, state=StateType.CRASHED, message="its heartbeats stopped", force=False)],
    )


if __name__ == "__main__":
    apply()
