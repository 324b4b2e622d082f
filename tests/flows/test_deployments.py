"""`prefect.yaml` and the flows' parameter forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployments.check import checked_deployments
from flows.personalize import personalize
from pipeline_lib.errors import ConfigError
from pipeline_lib.registry import choose_method
from tests.conftest import REPOSITORY

DEPLOYMENT = """
deployments:
  - name: test
    entrypoint: {entrypoint}
    parameters: {parameters}
"""


def test_every_deployment_imports_and_its_parameters_fit() -> None:
    deployments = checked_deployments(REPOSITORY / "prefect.yaml")
    assert set(deployments) == {"set-and-sequence-pocket"}
    for parameters in deployments.values():
        assert choose_method(parameters["config"]).preset == "pocket"


@pytest.mark.parametrize(
    ("entrypoint", "parameters", "said"),
    [
        ("flows/nothing.py:personalize", "{}", "there is no flows/nothing.py"),
        ("flows/personalize.py:caption", "{}", "is not a flow"),
        ("flows/personalize.py:personalize", "{config: {sed: 1}}", "sed"),
        ("flows/personalize.py:personalize", "{config: {seed: dog}}", "seed"),
        ("flows/personalize.py:personalize", "{confg: {}}", "confg"),
    ],
)
def test_a_wrong_deployment_is_told(tmp_path: Path, entrypoint: str, parameters: str, said: str) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "personalize.py").touch()
    path = tmp_path / "prefect.yaml"
    path.write_text(DEPLOYMENT.format(entrypoint=entrypoint, parameters=parameters))
    with pytest.raises(ConfigError, match=said):
        checked_deployments(path)


def depth_of(schema: dict[str, Any], definitions: dict[str, Any]) -> int:
    """How many models deep a parameter's schema goes; unions are refused."""
    assert not {"anyOf", "oneOf"} & schema.keys(), schema
    if "$ref" in schema:
        inner = definitions[schema["$ref"].rpartition("/")[2]]
        return 1 + max((depth_of(value, definitions) for value in inner.get("properties", {}).values()), default=0)
    return max((depth_of(schema[part], definitions) for part in ("items",) if part in schema), default=0)


def test_the_form_has_two_levels_no_unions_and_defaults_everywhere() -> None:
    schema = personalize.parameters.model_dump()
    definitions = schema["definitions"]
    assert not schema["required"]
    for parameter in schema["properties"].values():
        assert depth_of({"$ref": parameter["$ref"]} if "$ref" in parameter else parameter["allOf"][0], definitions) <= 2
    for name, model in definitions.items():
        required = set(model.get("required", []))
        assert required <= {"class_noun"}, (name, required)  # a caption without a noun is none


def test_the_server_of_the_pinned_fastapi_imports() -> None:
    from prefect.server.api.server import create_app

    assert callable(create_app)
