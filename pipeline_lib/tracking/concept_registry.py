"""The registry: concepts by name, their versions, and which of them is the champion."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline_lib.errors import InputError, PipelineError
from pipeline_lib.tracking import names
from pipeline_lib.tracking.concept_models import CONCEPT_TAG
from pipeline_lib.tracking.connection import Connection, connect, database_lock, quotable

CHAMPION = "champion"
EXPERIMENT = "mannerism"
_NAMED = re.compile(r"(?P<name>[^@]+)(?:@(?P<which>[^@]+))?")
_MODEL = re.compile(r"models:/(?P<id>[\w-]+)")
_ABSENT = "RESOURCE_DOES_NOT_EXIST"


@dataclass(frozen=True, kw_only=True)
class ConceptVersion:
    """A version of a registered concept.

    Attributes:
        name: of the concept.
        number: of the version, from 1.
        source: `models:/<id>` of the model that it is.
        run: id of the MLflow run that made it.
        created: when it was registered.
        aliases: that point to it.
        tags: of the version.
        scores: means that belong to the model.
    """

    name: str
    number: int
    source: str
    run: str
    created: datetime
    aliases: tuple[str, ...]
    tags: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}@{self.number}"


class ConceptRegistry:
    """The registered concepts of one MLflow.

    Args:
        uri: as :class:`~pipeline_lib.tracking.mlflow_tracker.MlflowTracker` takes it.
        experiment: its name; made when missing.
        artifact_location: of a new experiment's files.
    """

    def __init__(self, uri: str, experiment: str = EXPERIMENT, artifact_location: str | Path = "") -> None:
        self._connection: Connection = connect(uri, experiment, artifact_location)
        self._client = self._connection.client

    def concepts(self) -> list[str]:
        """Names of all registered concepts, sorted; models of others in the same MLflow are left out."""
        found: list[str] = []
        token = None
        while True:
            with _answered():
                page = self._client.search_registered_models(max_results=1000, page_token=token)
            found += [str(model.name) for model in page if CONCEPT_TAG in (model.tags or {})]
            token = page.token
            if not token:
                return sorted(found)

    def versions(self, name: str) -> list[ConceptVersion]:
        """All versions of a concept, the oldest first; none where there is no such concept.

        Args:
            name: of the concept.

        Returns:
            Those that runs registered; what others put under the same name is left out, as is what was deleted.

        Raises:
            PipelineError: MLflow does not answer.
        """
        from mlflow.exceptions import MlflowException

        registered = names.model_name(name)
        with _answered():
            try:
                aliases = self._client.get_registered_model(registered).aliases
            except MlflowException as error:
                if error.error_code != _ABSENT:
                    raise
                return []
            found = self._client.search_model_versions(f"name = '{quotable(registered)}'", max_results=1000)
            ours = [version for one in found if (version := self._version(one, aliases)) is not None]
        return sorted(ours, key=lambda version: version.number)

    def champion(self, name: str) -> ConceptVersion | None:
        """The version that the alias `champion` points to."""
        return next((version for version in self.versions(name) if CHAMPION in version.aliases), None)

    def find(self, asked: str) -> ConceptVersion:
        """The version that a person means.

        Args:
            asked: `wolf` (its champion), `wolf@3`, `wolf@champion` or another alias.

        Returns:
            The version.

        Raises:
            InputError: no such concept, no such version, or no champion yet; says what there is.
        """
        match = _NAMED.fullmatch(asked)
        name, which = (match["name"], match["which"] or CHAMPION) if match else (asked, CHAMPION)
        versions = self.versions(name)
        if not versions:
            known = ", ".join(self.concepts())
            raise InputError(
                f"there is no concept {name!r}", expected=f"one of {known}" if known else "", fix="" if known else _NONE
            )
        for version in versions:
            if which == str(version.number) or which in version.aliases:
                return version
        there = ", ".join(str(version.number) for version in versions)
        if which == CHAMPION:
            fix = f"name a version, e.g. {versions[-1]}; `mannerism concepts` tells why"
            raise InputError(f"{name} has no champion yet", got=f"versions {there}", fix=fix)
        raise InputError(f"{name} has no version {which!r}", expected=f"one of {there}, or an alias")

    def version_of(self, name: str, model: str) -> ConceptVersion:
        """The version that a model became when it was registered.

        Args:
            name: of the concept.
            model: `models:/<id>`.

        Returns:
            The version.
        """
        return next(version for version in self.versions(name) if version.source == model)

    def note(self, version: ConceptVersion, tags: Mapping[str, str]) -> None:
        """Writes tags on a version; those of equal names are replaced."""
        registered = names.model_name(version.name)
        for key, value in tags.items():
            self._client.set_model_version_tag(registered, str(version.number), key, value)

    def crown(self, version: ConceptVersion, *, instead_of: int) -> bool:
        """Makes a version the champion, unless another became it since the gate looked.

        Args:
            version: the challenger.
            instead_of: number of the champion that it was compared with; 0: there was none.

        Returns:
            Whether it was done; if not, the gate should look again.
        """
        with database_lock(self._connection.uri):
            champion = self.champion(version.name)
            if (champion.number if champion else 0) != instead_of:
                return False
            registered = names.model_name(version.name)
            self._client.set_registered_model_alias(registered, CHAMPION, str(version.number))
            return True

    def score(self, version: ConceptVersion, scores: Mapping[str, float], run: str) -> None:
        """Notes scores of a version's model that another run than its own has made.

        Args:
            version: what was scored.
            scores: by metric.
            run: the MLflow run that scored it.
        """
        from mlflow.entities import Metric

        now = int(datetime.now(UTC).timestamp() * 1000)
        model = version.source.removeprefix("models:/")
        entries = [Metric(names.key(name), float(value), now, 0, model_id=model) for name, value in scores.items()]
        self._client.log_batch(run, metrics=entries)

    def fetch(self, version: ConceptVersion, folder: Path) -> Path:
        """Copies a version's files.

        Args:
            version: of a concept.
            folder: to copy to; what is there already stays as it is.

        Returns:
            `folder`.
        """
        import mlflow

        if (folder / "concept.json").is_file():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
            fetched = Path(
                mlflow.artifacts.download_artifacts(version.source, dst_path=scratch, tracking_uri=self._connection.uri)
            )
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(fetched, folder)
        return folder

    def _version(self, found: Any, aliases: Mapping[str, str]) -> ConceptVersion | None:
        from mlflow.exceptions import MlflowException

        if (source := _MODEL.fullmatch(str(found.source))) is None:
            return None
        try:
            model = self._client.get_logged_model(source["id"])
        except MlflowException as error:
            if error.error_code != _ABSENT:
                raise
            return None
        latest = {metric.key: metric for metric in sorted(model.metrics or [], key=lambda metric: metric.timestamp)}
        return ConceptVersion(
            name=str(found.name),
            number=int(found.version),
            source=str(found.source),
            run=str(model.source_run_id or ""),
            created=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
            aliases=tuple(sorted(alias for alias, number in aliases.items() if str(number) == str(found.version))),
            tags=dict(found.tags or {}),
            scores={key: float(metric.value) for key, metric in latest.items()},
        )


@contextmanager
def _answered() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise PipelineError(f"MLflow cannot be asked for concepts: {error}") from error


_NONE = "none is registered yet; a run registers its own when it ends"
