"""Re-evaluate: champions are scored again with today's encoders and metrics, so that their numbers stay comparable."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from pipeline_lib.errors import InputError, PipelineError, StopRequested
from pipeline_lib.steps.concepts import registry_of
from pipeline_lib.steps.state import StateFolder
from tasks.courtesy import courtesy
from tasks.rescore import rescore
from tasks.use_concept import worker_child


@flow(name="reevaluate", persist_result=False, result_serializer="json")
def reevaluate(concepts: list[str] = []) -> State[dict[str, Any]]:  # noqa: B006 - the form's default
    """Scores champions again; those whose scores are today's already are found.

    Args:
        concepts: names of registered concepts, perhaps with a version, e.g. `wolf@2`; empty: every champion.

    Returns:
        A row for each concept, in a state that tells how many could not be scored.

    Raises:
        InputError: a concept that is named is not registered, or has no champion.
    """
    state = StateFolder.open()
    registry = registry_of(state)
    if registry is None and concepts:
        raise InputError(f"there is no concept {concepts[0]!r}", fix="none is registered yet")
    rows: list[dict[str, Any]] = []
    if registry is not None:
        every = filter(None, map(registry.champion, registry.concepts()))
        versions = [registry.find(name) for name in concepts] if concepts else list(every)
        with worker_child(state, "reevaluate") as ask:
            for version in versions:
                try:
                    rows.append(rescore(version, registry, ask))
                except StopRequested:
                    raise
                except PipelineError as error:
                    get_run_logger().warning("%s: %s", version, error)
                    rows.append({"concept": str(version), "status": "failed", "reason": str(error)})
    failed = [row["concept"] for row in rows if row["status"] == "failed"]
    told = f"{len(rows) - len(failed)} of {len(rows)} scored" + (f"; {', '.join(failed)} failed" if failed else "")
    with courtesy("the scores"):
        create_table_artifact(rows, key="reevaluated", description=told)
    ended = Failed if failed else Completed
    return ended(message=told, data={"rows": rows})
