"""Checks `prefect.yaml` against the code: every entrypoint imports, every parameter fits its schema."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from deployments.automations import checked_triggers
from deployments.schedules import declared_schedules
from pipeline_lib.errors import ConfigError

if TYPE_CHECKING:
    from prefect import Flow


def declared_deployments(path: Path) -> list[dict[str, Any]]:
    """The deployments of a file as they are written.

    Args:
        path: of `prefect.yaml`.

    Returns:
        One entry each.

    Raises:
        ConfigError: there is no such file.
    """
    if not path.is_file():
        raise ConfigError(f"there is no {path}", fix="deployments are applied from a clone of the project")
    deployments: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))["deployments"]
    return deployments


def checked_deployments(path: Path) -> dict[str, dict[str, Any]]:
    """The deployments of a file, by name.

    Args:
        path: of `prefect.yaml`.

    Returns:
        Each deployment's parameters after validation, with all defaults filled in.

    Raises:
        ConfigError: an entrypoint that is no flow, parameters that do not fit, a schedule or a
            trigger that is none.
    """
    checked: dict[str, dict[str, Any]] = {}
    for deployment in declared_deployments(path):
        if deployment["name"] in checked:
            raise ConfigError(f"{path}: {deployment['name']} is declared twice")
        declared_schedules(deployment)
        checked_triggers(deployment.get("triggers", []))
        checked[deployment["name"]] = _checked_parameters(deployment)
    return checked


def flow_of(deployment: dict[str, Any]) -> Flow[..., Any]:
    """The flow that a deployment runs.

    Args:
        deployment: its entry; the entrypoint is `module.flow`, which is found wherever the package is installed, on
            this machine as in a container.

    Returns:
        The flow.

    Raises:
        ConfigError: no such module, or not a flow.
    """
    from prefect import Flow

    module, _, attribute = deployment["entrypoint"].rpartition(".")
    try:
        found = getattr(import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{deployment['name']}: entrypoint", got=str(error), expected="module.flow") from error
    if not isinstance(found, Flow):
        raise ConfigError(f"{deployment['name']}: {deployment['entrypoint']} is not a flow")
    return found


def _checked_parameters(deployment: dict[str, Any]) -> dict[str, Any]:
    from prefect.exceptions import ParameterTypeError

    try:
        values: dict[str, Any] = flow_of(deployment).validate_parameters(deployment.get("parameters", {}))
    except (ParameterTypeError, ValidationError, TypeError) as error:
        raise ConfigError(f"{deployment['name']}: parameters", got=" ".join(str(error).split())) from error
    return values
