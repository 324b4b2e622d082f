"""What all tasks of the road share: no Prefect caching, JSON results, retries for infrastructure only."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed

from pipeline_lib.steps.step import StepResult
from tasks.session import current_session

P = ParamSpec("P")


def _worth_retrying(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    try:
        state.result()
    except Exception as error:
        return current_session().may_retry(error)
    return False


ROAD: dict[str, Any] = {
    "cache_policy": NO_CACHE,  # the artifact store is the only cache
    "persist_result": False,
    "result_serializer": "json",
    "retries": 2,
    "retry_delay_seconds": 1,
    "retry_condition_fn": _worth_retrying,
}


def stage_task(run_name: str) -> Callable[[Callable[P, StepResult]], Callable[P, StepResult]]:
    """Makes a Prefect task of a function that returns a step's result.

    Where the result was found rather than made, the task run's state is named "Cached". The call itself
    returns the result, or raises what the body raised.

    Args:
        run_name: name of the task run; may hold the body's parameters in braces.

    Returns:
        The decorator.
    """

    def decorate(body: Callable[P, StepResult]) -> Callable[P, StepResult]:
        @task(name=body.__name__, task_run_name=run_name, **ROAD)
        @wraps(body)
        def run(*args: P.args, **kwargs: P.kwargs) -> StepResult | State[StepResult]:
            result = body(*args, **kwargs)
            return Completed(name="Cached", data=result) if result.found else result

        @wraps(body)
        def call(*args: P.args, **kwargs: P.kwargs) -> StepResult:
            state: State[Any] = run(*args, return_state=True, **kwargs)
            result: StepResult = state.result()
            return result

        return call

    return decorate
