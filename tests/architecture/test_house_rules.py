"""The house rules that a tool of its own does not hold: sizes, names, what may be imported when."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("pipeline_lib", "tasks", "flows", "deployments", "benchmarks")
MODULES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            told = bool(ast.get_docstring(node)) and len(node.body) > 1
            yield node.name, (node.end_lineno or 0) - node.body[1 if told else 0].lineno + 1


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_module_and_no_function_is_too_long(path):
    assert len(path.read_text().splitlines()) <= 400
    assert {name: lines for name, lines in functions(path) if lines > 60} == {}


def test_one_place_writes_safetensors():
    """The library's own writers order a header differently from process to process."""
    writers = {"save", "save_file", "save_model", "serialize", "serialize_file"}
    found = {
        str(path.relative_to(REPOSITORY))
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "safetensors"
        if writers & {name.name for name in node.names}
    }
    assert found == {"pipeline_lib/storage/tensors.py"}


def test_no_drawer_for_odds_and_ends():
    assert [path for path in MODULES if path.stem in {"utils", "helpers", "common", "misc"}] == []


def test_tasks_are_glue():
    long = {
        f"{path.stem}.{name}": lines
        for path in MODULES
        if path.parent.name == "tasks"
        for name, lines in functions(path)
        if lines > 25
    }
    assert long == {}


def test_the_library_loads_neither_prefect_nor_mlflow():
    code = (
        "import importlib, pkgutil, sys, pipeline_lib\n"
        "for found in pkgutil.walk_packages(pipeline_lib.__path__, 'pipeline_lib.'):\n"
        "    if not found.name.endswith('__main__'): importlib.import_module(found.name)\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'prefect', 'mlflow'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"


def test_layer_contracts_hold():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stdout


def test_every_package_is_listed_for_the_wheel():
    import tomllib

    listed = set(tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    present = {
        ".".join(path.parent.relative_to(REPOSITORY).parts)
        for path in MODULES
        if path.name == "__init__.py" and path.relative_to(REPOSITORY).parts[0] != "benchmarks"
    }
    assert listed == present


def test_the_pinned_environment_satisfies_every_requirement():
    """Prefect's server dies on import outside a range of fastapi; constraints.txt must stay inside."""
    import prefect.server.api.server  # noqa: F401

    pins = (REPOSITORY / "constraints.txt").read_text().splitlines()
    assert all("==" in pin and "://" not in pin and "@" not in pin for pin in pins)


def test_yaml_files_are_plain_data():
    for path in REPOSITORY.glob("*.yaml"):
        assert yaml.safe_load(path.read_text())
