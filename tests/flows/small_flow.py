"""A flow with the form of the real ones, and nothing behind it."""

from __future__ import annotations

from prefect import flow

from pipeline_lib.run_config import RunConfig


@flow
def small(config: RunConfig = RunConfig()) -> int:  # noqa: B008 - frozen
    """What a deployment of a test runs."""
    return config.seed
