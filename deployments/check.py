"""Checks `prefect.yaml` against the code: every entrypoint imports, every parameter fits its schema."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline_lib.errors import ConfigError


def checked_deployments(path: Path) -> dict[str, dict[str, Any]]:
    """The deployments of a file, by name.

    Args:
        path: of `prefect.yaml`; entrypoints are relative to its folder.

    Returns:
        Each deployment's parameters after validation, with all defaults filled in.

    Raises:
        ConfigError: an entrypoint that is no flow, or parameters that do not fit.
    """
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {item["name"]: _checked(item, path) for item in loaded["deployments"]}


def _checked(deployment: dict[str, Any], path: Path) -> dict[str, Any]:
    from prefect import Flow
    from prefect.exceptions import ParameterTypeError

    file, _, attribute = deployment["entrypoint"].partition(":")
    if not (path.parent / file).is_file():
        raise ConfigError(f"{path}: {deployment['name']}: there is no {file}")
    flow = getattr(import_module(file.removesuffix(".py").replace("/", ".")), attribute, None)
    if not isinstance(flow, Flow):
        raise ConfigError(f"{path}: {deployment['name']}: {deployment['entrypoint']} is not a flow")
    try:
        values: dict[str, Any] = flow.validate_parameters(deployment.get("parameters", {}))
    except (ParameterTypeError, ValidationError, TypeError) as error:
        raise ConfigError(f"{path}: {deployment['name']}: parameters", got=" ".join(str(error).split())) from error
    return values
