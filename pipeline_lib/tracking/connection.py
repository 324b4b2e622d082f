"""One MLflow experiment: reached, made when missing, its database prepared once."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psutil
from filelock import FileLock

from pipeline_lib.errors import ConfigError
from pipeline_lib.storage.files import sync
from pipeline_lib.tracking.tracker import DIGEST_TAG, FLOW_RUN_TAG

# "host pid start": who writes a run; a run left open by a process that is gone can be told by it.
WRITER_TAG = "mannerism.writer"
STAGE_TAG = "mannerism.stage"
PAGES_VARIABLE = "MANNERISM_MLFLOW_UI"
# What flows/environment.py sets for every command and worker: where all runs of a service meet.
_STATE_VARIABLE, _STATE_DEFAULT = "MANNERISM_STATE", "mannerism_state"
_SQLITE = "sqlite:////"
FlowRuns = Callable[[Sequence[str]], Collection[str]]
"""Of the flow runs that it is given, by id, those that have ended."""
# No usage statistics, no code from models, nothing on standard output (a command may print JSON there).
_QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_MODEL_CODE_EXECUTION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@dataclass(frozen=True)
class Connection:
    """A client and the experiment it writes to."""

    client: Any
    uri: str
    experiment_id: str

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process with the same database or state folder looks something up and writes it meanwhile."""
        with database_lock(self.uri):
            yield

    def find(self, filter_string: str) -> list[Any]:
        """All runs of the experiment that match, the latest first."""
        found: list[Any] = []
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], filter_string, order_by=["attributes.start_time DESC"], page_token=token
            )
            found.extend(page)
            token = page.token
            if not token:
                return found

    def find_run(self, digest: str) -> str:
        """The id of the latest run with a digest, or an empty text."""
        runs = self.find(f"tags.`{DIGEST_TAG}` = '{quotable(digest)}'")
        return str(runs[0].info.run_id) if runs else ""


def connect(uri: str, experiment: str, artifact_location: str | Path) -> Connection:
    """Reaches an experiment; makes the database and the experiment when they are missing.

    Safe for many processes on a fresh database at once. MLflow's usage statistics are off.

    Args:
        uri: `sqlite:////absolute/path.db`, or a server's http address.
        experiment: its name.
        artifact_location: an absolute folder or uri; empty leaves it to the server.

    Returns:
        The connection.

    Raises:
        ConfigError: the uri is not one of the two kinds.
    """
    os.environ.update(_QUIET)  # MLflow reads them when it is imported
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    if not uri.startswith((_SQLITE, "http://", "https://")):
        raise ConfigError(
            "the tracking uri cannot be used", got=uri, expected="sqlite:////absolute/path.db or http://host:port"
        )
    with database_lock(uri):
        import mlflow

        if uri.startswith(_SQLITE):
            _prepare(_database(uri), mlflow.MlflowClient)

        mlflow.set_tracking_uri(uri)  # registering a model looks it up here, whatever the client's own uri
        client = mlflow.MlflowClient(uri)
        return Connection(client, uri, _experiment_id(client, experiment, artifact_location))


def page_address(uri: str) -> str:
    """Where people open a server's pages: `MANNERISM_MLFLOW_UI`, else the uri without a name and a password in it.

    A container knows the server by a name that no browser outside reaches.

    Args:
        uri: the server's http address, as the client uses it.

    Returns:
        An http address without a slash at its end.
    """
    shown = os.environ.get(PAGES_VARIABLE) or uri
    parts = urlsplit(shown)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")


@contextmanager
def database_lock(uri: str) -> Iterator[None]:
    """Held by one process per SQLite file, or per server among those that share a state folder.

    A server takes single requests; to look and then to write, as for a run's number or a champion, are several.
    """
    if uri.startswith(_SQLITE):
        path = _database(uri)
    else:
        state = Path(os.environ.get(_STATE_VARIABLE) or _STATE_DEFAULT).expanduser()
        path = state / "mlflow" / f"server-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):
        yield


def writer() -> str:
    """This process, as `WRITER_TAG` tells it."""
    return f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time():.2f}"


def close_dangling(connection: Connection, ended: FlowRuns = lambda _flow_runs: ()) -> list[str]:
    """Closes runs left open by processes of this machine that are gone, and by flow runs that ended on another.

    Args:
        connection: from :func:`connect`.
        ended: asked about the flow runs of other machines, or of containers that are gone; else those stay open.

    Returns:
        The ids of the runs that were closed, with status KILLED.
    """
    closed = []
    with connection.alone():
        tags = {str(run.info.run_id): run.data.tags for run in connection.find("attributes.status = 'RUNNING'")}
        elsewhere = {run: kept.get(FLOW_RUN_TAG, "") for run, kept in tags.items() if not _is_here(kept)}
        asked = sorted(set(elsewhere.values()) - {""})
        over = set(ended(asked)) if asked else set()
        for run, kept in tags.items():
            if elsewhere[run] in over if run in elsewhere else _is_gone(kept):
                connection.client.set_terminated(run, "KILLED")
                closed.append(run)
    return closed


def quotable(text: str) -> str:
    """A value for MLflow's filter language, which has no escapes."""
    if not text or any(mark in text for mark in "'\"`\\\n"):
        raise ValueError(f"{text!r} cannot be searched for")
    return text


def _database(uri: str) -> Path:
    return Path("/" + uri.removeprefix(_SQLITE))


def _prepare(path: Path, client: Callable[[str], Any]) -> None:
    # Made elsewhere and renamed: a database whose tables a kill left half-made is of no use for ever.
    if not path.exists():
        nursery = path.with_name(f".{path.name}.new")
        shutil.rmtree(nursery, ignore_errors=True)
        nursery.mkdir()
        client(f"sqlite:///{nursery / 'made.db'}").search_experiments(max_results=1)
        # A copy, because MLflow keeps connections to the file it made.
        shutil.copyfile(nursery / "made.db", nursery / "copy.db")
        sync(nursery / "copy.db")
        (nursery / "copy.db").rename(path)
        sync(path.parent)
        shutil.rmtree(nursery)
    with closing(sqlite3.connect(path)) as database:
        # Readers and the writer do not block each other; the mode stays with the file.
        database.execute("PRAGMA journal_mode=WAL")


def _experiment_id(client: Any, name: str, artifact_location: str | Path) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        place = str(artifact_location)
        if place and "://" not in place and not place.startswith("mlflow-artifacts:"):
            place = Path(place).resolve().as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=place or None))
        except MlflowException as error:  # behind a server, another machine may be quicker
            found = client.get_experiment_by_name(name)
            if found is None:
                raise error
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _is_here(tags: Mapping[str, str]) -> bool:
    return tags.get(WRITER_TAG, "").partition(" ")[0] == socket.gethostname()


def _is_gone(tags: Mapping[str, str]) -> bool:
    """Whether the process of this machine that wrote a run is gone."""
    _, pid, start = tags[WRITER_TAG].split(" ")
    try:
        running = psutil.Process(int(pid))
        return f"{running.create_time():.2f}" != start or running.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
