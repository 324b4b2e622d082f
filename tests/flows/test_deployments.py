"""`prefect.yaml` and the flows' parameter forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployments.apply import LIGHT_POOL, POOL
from deployments.check import checked_deployments, declared_deployments, flow_of
from flows.cli.compare import compare_config
from flows.compare_plan import plan
from flows.environment import HEARTBEAT_SECONDS
from flows.ingest import DEPLOYMENT as DROPS
from pipeline_lib.errors import ConfigError
from pipeline_lib.models.families import FAMILIES
from pipeline_lib.registry import choose_method, method_names
from tests.conftest import REPOSITORY

DEPLOYMENT = """
deployments:
  - name: test
    entrypoint: {entrypoint}
    parameters: {parameters}
    schedules: {schedules}
    triggers: {triggers}
"""
PERSONALIZE = "flows.personalize.personalize"


def test_every_deployment_imports_and_its_parameters_fit() -> None:
    deployments = checked_deployments(REPOSITORY / "prefect.yaml")
    assert DROPS.partition("/")[2] in deployments
    configs = {name: values["config"] for name, values in deployments.items() if "config" in values}
    for name, config in configs.items():
        assert choose_method(config).method.name == config.method.name
        on_pocket = "demo" if name == "compare-core" else "pocket"
        assert choose_method(config).preset == (on_pocket if config.base.source == "pocket" else "portable"), name


def test_every_method_has_a_deployment_on_the_pocket_base_and_every_family_one_by_its_published_id() -> None:
    checked = checked_deployments(REPOSITORY / "prefect.yaml")
    runs = [values["config"] for values in checked.values() if values.keys() == {"config", "review"}]
    pocket = {config.method.name for config in runs if config.base.source == "pocket"}
    others = {config.base.source: config.training for config in runs if config.base.source != "pocket"}
    assert pocket == set(method_names())
    published = [set(family.examples) for family in FAMILIES.values()]
    assert others.keys() <= set().union(*published)
    assert all(others.keys() & ids for ids in published)
    assert len([source for source in others if source.startswith("Wan-AI/")]) == 4
    for training in others.values():
        assert (training.device, training.gradient_checkpointing, training.micro_batch) == ("cuda", True, 1)


def test_the_scheduled_comparison_is_the_commands_own() -> None:
    """On the servers and by hand it is one comparison: its cells are found."""
    values = checked_deployments(REPOSITORY / "prefect.yaml")["compare-core"]
    by_hand = plan([], "", [], compare_config("", "", "", "", [], quick=False))
    scheduled = plan(values["methods"], values["gizmos"], values["concepts"], values["config"])
    assert scheduled == by_hand
    assert (len(scheduled.entries), len(scheduled.concepts)) == (6, 8)


def test_what_every_deployment_shares() -> None:
    from prefect import settings

    for item in declared_deployments(REPOSITORY / "prefect.yaml"):
        assert item["work_pool"]["name"] in {POOL, LIGHT_POOL}
        assert item["description"]
        assert "mannerism" in item["tags"]
        assert item["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
        environment = item["work_pool"]["job_variables"]["env"]
        assert environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == str(HEARTBEAT_SECONDS)
        assert environment["DO_NOT_TRACK"] == "true"
        assert all(hasattr(settings, name) for name in environment if name.startswith("PREFECT_"))
        for schedule in item.get("schedules", []):
            assert schedule["active"] is False, "people switch schedules on, not the file"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"entrypoint": "flows.nothing.personalize"}, "No module named"),
        ({"entrypoint": "flows.personalize.caption"}, "is not a flow"),
        ({"parameters": "{config: {sed: 1}}"}, "sed"),
        ({"parameters": "{config: {seed: dog}}"}, "seed"),
        ({"parameters": "{confg: {}}"}, "confg"),
        ({"schedules": "[{cron: '0 2 * * *', timezone: UTC}]"}, "slug"),
        ({"schedules": "[{cron: '0 2 * *', timezone: UTC, slug: nightly}]"}, "nightly"),
        ({"schedules": "[{cron: '0 2 * * *', timezone: Utopia/Amaurot, slug: nightly}]"}, "nightly"),
        ({"triggers": "[{type: event, expect: [a.b]}]"}, "has no name"),
        ({"triggers": "[{type: event, expect: [a.b], name: odd, threshold: many}]"}, "trigger odd"),
    ],
)
def test_a_wrong_deployment_is_told(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    path = tmp_path / "prefect.yaml"
    right = {"entrypoint": PERSONALIZE, "parameters": "{}", "schedules": "[]", "triggers": "[]"}
    path.write_text(DEPLOYMENT.format(**right))
    assert set(checked_deployments(path)) == {"test"}
    path.write_text(DEPLOYMENT.format(**{**right, **changed}))
    with pytest.raises(ConfigError, match=said):
        checked_deployments(path)


def test_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a clone of the project"):
        checked_deployments(tmp_path / "prefect.yaml")


def depth_of(schema: dict[str, Any], definitions: dict[str, Any]) -> int:
    """How many models deep a parameter's schema goes; unions are refused."""
    assert not {"anyOf", "oneOf"} & schema.keys(), schema
    if "$ref" in schema:
        inner = definitions[schema["$ref"].rpartition("/")[2]]
        return 1 + max((depth_of(value, definitions) for value in inner.get("properties", {}).values()), default=0)
    return max((depth_of(schema[part], definitions) for part in ("items",) if part in schema), default=0)


def test_every_form_has_two_levels_no_unions_and_defaults_everywhere() -> None:
    flows = {flow.name: flow for flow in map(flow_of, declared_deployments(REPOSITORY / "prefect.yaml"))}
    assert flows.keys() == {"personalize", "generate", "batch", "reevaluate", "compare"}
    for flow_name, flow in flows.items():
        schema = flow.parameters.model_dump()
        definitions = schema["definitions"]
        assert not schema["required"], flow_name
        for parameter in schema["properties"].values():
            (whole,) = parameter.get("allOf", [parameter])
            assert depth_of(whole, definitions) <= 2, flow_name
        for name, model in definitions.items():
            required = set(model.get("required", []))
            assert required <= {"class_noun"}, (name, required)  # a caption without a noun is none


def test_the_server_of_the_pinned_fastapi_imports() -> None:
    from prefect.server.api.server import create_app

    assert callable(create_app)
