"""What a person may call a concept: a folder, a run, a registered concept, one of its versions."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.errors import InputError
from pipeline_lib.run_config import RunConfig, load_config
from pipeline_lib.steps.gate import RUN_TAG
from pipeline_lib.steps.layout import CONCEPT_FILE
from pipeline_lib.steps.run_folder import CONFIG_FILE, find_run
from pipeline_lib.steps.state import StateFolder

if TYPE_CHECKING:
    from pipeline_lib.tracking.concept_registry import ConceptRegistry


@dataclass(frozen=True)
class FoundConcept:
    """A concept that is at hand.

    Attributes:
        label: which one it is, for people: `wolf@3`, a run's name, a folder.
        folder: its files.
        config: as it was trained; the defaults where that is not known here.
    """

    label: str
    folder: Path
    config: RunConfig


def find_concept(name: str, state: StateFolder) -> FoundConcept:
    """The concept that a person means.

    A folder goes before a run's whole name, that before a registered concept, whose champion is meant where no version
    is named, and that before the beginning of a run's name.

    Args:
        name: a concept folder; a run; `wolf`, `wolf@3`, `wolf@champion`.
        state: where runs live, and which MLflow is asked.

    Returns:
        The concept; a registered one's files are fetched once.

    Raises:
        InputError: there is none, several, or a registered concept has no champion; says what there is.
    """
    if not name.strip():
        raise InputError(
            "no concept is named", expected="a registered concept, e.g. wolf@3, a run, or a concept folder"
        )
    if (Path(name) / CONCEPT_FILE).is_file():
        return FoundConcept(name, Path(name), RunConfig())
    names = state.run_names()
    if name in names:
        return _of_run(name, state)
    registry = registry_of(state)
    if registry is None:
        if "@" in name:
            raise InputError(f"there is no concept {name!r}", fix="none is registered yet; runs do that when they end")
        return _of_run(name, state)
    if "@" in name or registry.versions(name):
        return _registered(name, registry, state)
    if any(other.startswith(name) for other in names):
        return _of_run(name, state)
    known = registry.concepts()
    raise InputError(
        f"there is no concept and no run named {name!r}",
        expected=f"a concept: {', '.join(known) or 'none is registered'}; or a run: {', '.join(names[-5:]) or 'none'}",
    )


def registry_of(state: StateFolder, experiment: str = "") -> ConceptRegistry | None:
    """The registered concepts that a state folder's runs know; None where nothing was ever logged.

    Args:
        state: says which MLflow.
        experiment: to log to; empty: the default one.

    Returns:
        The registry.
    """
    database = state.root / "mlflow" / "mlflow.db"
    local = state.mlflow_uri == state.mlflow_database
    if local and not database.is_file():
        return None
    from pipeline_lib.tracking.concept_registry import EXPERIMENT, ConceptRegistry

    return ConceptRegistry(state.mlflow_uri, experiment or EXPERIMENT, state.mlflow_place)


def _of_run(name: str, state: StateFolder) -> FoundConcept:
    run = find_run(state, name)
    folder = run.path / "concept"
    if not (folder / CONCEPT_FILE).is_file():
        raise InputError(f"the run {run.run_id} has no concept yet", fix=f"finish it: mannerism resume {run.run_id}")
    return FoundConcept(run.run_id, folder, load_config(run.path / CONFIG_FILE))


def _registered(name: str, registry: ConceptRegistry, state: StateFolder) -> FoundConcept:
    version = registry.find(name)
    model = version.source.removeprefix("models:/")
    folder = registry.fetch(version, state.fetched / model)
    config = RunConfig()
    with suppress(InputError):  # its run may have been made elsewhere, or deleted
        config = load_config(state.runs / version.tags.get(RUN_TAG, "-") / CONFIG_FILE)
    return FoundConcept(str(version), folder, config)
