"""Flow runs as the pages of runs in MLflow name them, and as Prefect's server knows them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.runtime import deployment, flow_run
from prefect.utilities.urls import url_for

from pipeline_lib.tracking import FLOW_RUN_TAG
from tasks.courtesy import courtesy

URL_TAG, DEPLOYMENT_TAG = "prefect.url", "prefect.deployment"


def flow_run_tags() -> dict[str, str]:
    """Which flow run this is, where people look at it and of which deployment it is; what there is of that."""
    # Not the runtime's own `ui_url`: it starts with "None" where there is no server.
    tags = {FLOW_RUN_TAG: flow_run.id, URL_TAG: url_for("flow-run", obj_id=flow_run.id)}
    with courtesy("the deployment's name in MLflow"):
        tags[DEPLOYMENT_TAG] = deployment.name
    return {name: value for name, value in tags.items() if value}


def ended_flow_runs(ids: Sequence[str]) -> Collection[str]:
    """Those of some flow runs that have ended, as the server says; none where it is away or does not know them."""
    asked = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(one) for one in ids]))
    runs: list[FlowRun] = []
    with courtesy("the end of other flow runs in MLflow"), get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=asked)
    return [str(run.id) for run in runs if run.state is not None and run.state.is_final()]
