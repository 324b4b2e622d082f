"""Whether MLflow is only away for a while."""

from __future__ import annotations

from http import HTTPStatus

from pipeline_lib.errors import PipelineError

_BUSY = "TEMPORARILY_UNAVAILABLE"


def is_away(error: BaseException | None) -> bool:
    """Whether MLflow's server did not answer, or its database was too busy, for longer than MLflow's client waits.

    Args:
        error: that came out of a tracker or a registry.

    Returns:
        Whether the same may go well some time later.
    """
    from mlflow.exceptions import MlflowException

    while isinstance(error, MlflowException | PipelineError):
        if getattr(error, "error_code", "") == _BUSY:
            return True
        error = error.__cause__ or error.__context__
    if type(error).__module__ != "requests.exceptions":  # of MLflow's client; files come and go without a wrapping
        return False
    response = getattr(error, "response", None)
    return response is None or response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
