"""The worker child's main: all model work of a run, one request after the other, models kept loaded.

It imports neither Prefect nor MLflow. `python -m pipeline_lib.worker STATE_FOLDER` serves the steps of
:mod:`pipeline_lib.steps.catalog` over pipes until the parent closes them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline_lib.processes.protocol import Emit, Handler, StopFlag
from pipeline_lib.processes.serve import serve
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.catalog import VERBS, Verb
from pipeline_lib.steps.run_folder import RunFolder, run_identity
from pipeline_lib.steps.shelf import ModelShelf
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.steps.step import StepContext


def main(arguments: list[str]) -> None:
    """Serves the steps; the state folder is the only argument."""
    serve(handlers(StateFolder.open(Path(arguments[0]))))


def handlers(state: StateFolder) -> Mapping[str, Handler]:
    """One request handler for each verb of the catalog, over one state folder."""
    store, shelf = state.store, ModelShelf(state.locks)

    def handler(verb: Verb) -> Handler:
        def handle(payload: dict[str, Any], emit: Emit, stop: StopFlag) -> dict[str, Any]:
            config = RunConfig.model_validate(payload["config"])
            learns = bool(config.concept.inputs)  # else a trained concept is used: no run, no previews
            context = StepContext(
                config=config,
                store=store,
                shelf=shelf,
                emit=emit,
                stop=stop,
                micro_batch=payload["micro_batch"],
                previews=RunFolder(state, run_identity(config)).previews if learns else None,
            )
            return verb(context, payload["arguments"]).model_dump(mode="json")

        return handle

    return {name: handler(verb) for name, verb in VERBS.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
