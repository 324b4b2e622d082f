"""The environment of Prefect and MLflow, set before either is imported."""

from __future__ import annotations

import json
import os

from filelock import FileLock, Timeout

from pipeline_lib.steps.state import TRACKING_VARIABLE, StateFolder

HEARTBEAT_SECONDS = 30
UP_FILE, UP_LOCK = "up.json", "up.lock"

_ALWAYS = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_MODEL_CODE_EXECUTION": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
}
_QUIET = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_FLOW_RUNS_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",  # nobody can look at an embedded server's log
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # what fails there is raised, too
}


def prepare_environment(state: StateFolder, *, quiet: bool = False) -> None:
    """Keeps everything in the state folder, telemetry off.

    What a person has set stays, but for telemetry.

    Args:
        state: holds PREFECT_HOME.
        quiet: nothing of Prefect's log on the console.
    """
    os.environ.setdefault("PREFECT_HOME", str(state.prefect_home))
    os.environ.setdefault("MANNERISM_STATE", str(state.root))
    os.environ.update(_ALWAYS)
    if quiet:
        os.environ.update(_QUIET)


def join_servers(state: StateFolder) -> bool:
    """Uses the servers of a `mannerism up` on the same state folder, where one runs.

    Two Prefect servers on one SQLite file would get in each other's way, and who runs `up` wants to see every run.

    Args:
        state: the state folder.

    Returns:
        Whether there is one.
    """
    try:
        addresses = json.loads((state.root / UP_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    try:
        with FileLock(state.root / UP_LOCK, timeout=0):
            return False  # left behind by one that was killed
    except Timeout:
        os.environ.setdefault("PREFECT_API_URL", addresses["prefect"])
        os.environ.setdefault(TRACKING_VARIABLE, addresses["mlflow"])
        os.environ["PREFECT_LOGGING_TO_API_ENABLED"] = "true"
        os.environ["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] = str(HEARTBEAT_SECONDS)
        return True
