"""A concept as MLflow's LoggedModel: files first, ready when they are whole, then scores, version and alias."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path

from pipeline_lib.storage.files import sha256
from pipeline_lib.tracking import names
from pipeline_lib.tracking.connection import Connection, quotable

CANDIDATE = "candidate"
CONCEPT_TAG = "mannerism.concept"
_CONTENT_TAG = "mannerism.content"


def logged_model(connection: Connection, run_id: str, folder: Path, name: str, tags: Mapping[str, str]) -> str:
    """The id of the run's model that holds this folder's files; made unless it is there and whole.

    Args:
        connection: where to.
        run_id: the run that made the files.
        folder: the files.
        name: of the model.
        tags: of the model, beside the digest of its files.

    Returns:
        The model's id.
    """
    from mlflow.entities import LoggedModelOutput

    client, content = connection.client, _content(folder)
    for former in client.search_logged_models(
        [connection.experiment_id], f"source_run_id = '{quotable(run_id)}' AND tags.`{_CONTENT_TAG}` = '{content}'"
    ):
        if former.status.value == "READY":
            return str(former.model_id)
        client.delete_logged_model(former.model_id)  # left behind by a kill
    model = client.create_logged_model(
        connection.experiment_id,
        name=names.model_name(name),
        source_run_id=run_id,
        tags={**names.clean_tags(tags), _CONTENT_TAG: content},
        model_type="concept",
    )
    try:
        client.log_model_artifacts(model.model_id, str(folder))
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    except BaseException:
        client.finalize_logged_model(model.model_id, "FAILED")
        raise
    client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)


def score(connection: Connection, run_id: str, model_id: str, metrics: Mapping[str, float]) -> None:
    """Notes scores that belong to a model; those it has already stay."""
    from mlflow.entities import Metric

    known = {metric.key for metric in connection.client.get_logged_model(model_id).metrics or []}
    now = int(time.time() * 1000)
    entries = [
        Metric(names.key(name), float(value), now, 0, model_id=model_id)
        for name, value in metrics.items()
        if names.key(name) not in known
    ]
    if entries:
        connection.client.log_batch(run_id, metrics=entries)


def register(connection: Connection, model_id: str, name: str) -> str:
    """Makes the model a version of a registered model, once, and the alias "candidate" point to it.

    Args:
        connection: where to.
        model_id: of the logged model.
        name: of the registered model.

    Returns:
        The version's number.
    """
    import mlflow

    client, registered, source = connection.client, names.model_name(name), f"models:/{model_id}"
    with connection.alone():
        known = client.search_model_versions(f"name = '{quotable(registered)}'")
        versions = [version for version in known if version.source == source]
        # Not the client's create_model_version: only this one links the model to its version.
        version = versions[0] if versions else mlflow.register_model(source, registered)
        client.set_registered_model_tag(registered, CONCEPT_TAG, name)
        client.set_registered_model_alias(registered, CANDIDATE, version.version)
    return str(version.version)


def _content(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{path.relative_to(folder).as_posix()} {sha256(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
