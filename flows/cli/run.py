"""`run`, `demo` and `resume`: one config, all the way."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from flows.cli.output import console, put, put_json
from flows.cli.scores import put_scores
from flows.cli.view import RunView
from flows.environment import join_servers, prepare_environment
from flows.guard import guarded
from pipeline_lib.errors import ConfigError
from pipeline_lib.run_config import RunConfig, anchored, load_config, with_settings
from pipeline_lib.steps.run_folder import RunResult, find_run
from pipeline_lib.steps.state import StateFolder

if TYPE_CHECKING:
    from pipeline_lib.world.gizmos import PromptKind

CONFIG_SUFFIXES = (".yaml", ".yml")
_FOREIGN_SUFFIXES = (".toml", ".json", ".ini", ".cfg")
DEMO_GUIDANCE = 4.5
"""Of the demo's samples: at the base's own 3 a learned creature follows fewer edits (Set-and-Sequence's README)."""
_DEMO_PROMPTS: Mapping[PromptKind, int] = {"reconstruction": 1, "local": 2, "global": 3}


def asked_config(source: str, options: Mapping[str, Any], settings: Sequence[str]) -> RunConfig:
    """The config that a command line asks for.

    Args:
        source: a config file, or something to learn from.
        options: setting to value; empty ones are left alone.
        settings: `key=value`, which go before.

    Returns:
        The validated config.

    Raises:
        ConfigError: a config that cannot be read, in another format than YAML, or with a wrong key or value.
    """
    path = Path(source).expanduser()
    if path.suffix.lower() in _FOREIGN_SUFFIXES:
        fix = "write it as YAML; mannerism init makes one to start from"
        raise ConfigError(f"{path} is neither media nor a config", expected="a config that ends in .yaml", fix=fix)
    if path.suffix.lower() in CONFIG_SUFFIXES:
        config = load_config(path)
    else:
        config = RunConfig.model_validate({"concept": {"inputs": [str(path)]}})
    given = [f"{key}={yaml.safe_dump(value, width=1 << 20)}" for key, value in options.items() if value != ""]
    return anchored(with_settings(config, [*given, *settings]), Path.cwd())


def demo_config(settings: Sequence[str]) -> RunConfig:
    """A creature of the pocket world that the pocket base has never seen, learned with the preset `demo`."""
    from pipeline_lib.pocket.gizmo_run import gizmo_settings, write_gizmo
    from pipeline_lib.world.gizmos import REPORTING, gizmo

    state = StateFolder.open()
    folder, creature = state.root / "demo", gizmo(REPORTING[0])
    config = RunConfig.model_validate({**gizmo_settings(creature, folder), "method": {"preset": "demo"}})
    wanted = with_settings(config, [f"samples.guidance_scale={DEMO_GUIDANCE}", *settings])
    state.make()
    write_gizmo(creature, folder, _DEMO_PROMPTS)
    return wanted


def resume_config(name: str) -> RunConfig:
    """The config of an earlier run."""
    folder = find_run(StateFolder.open(), name)
    return load_config(folder.path / "config.yaml")


def run_and_tell(config: RunConfig, *, as_json: bool) -> None:
    """Runs a config through Prefect and MLflow and prints what came out."""
    started = time.monotonic()
    state = StateFolder.open()
    with RunView(console) as view:
        result = _run(config, state, view)
    wall = round(time.monotonic() - started, 2)
    if as_json:
        put_json({**result.model_dump(mode="json"), "wall_seconds": wall})
    else:
        put(f"{result.run_id}: {_ending(result, wall)}")
        tell(result)


def _run(config: RunConfig, state: StateFolder, view: RunView) -> RunResult:
    prepare_environment(state, quiet=True)
    join_servers(state)
    from tasks.session import RunSession, opened

    session = RunSession(config, state, view.on_event)
    if session.finished is not None:
        return session.result()
    with guarded(), opened(session):  # the worker loads while Prefect is imported and its server starts
        from flows.personalize import personalize

        personalize(config)
        view.finish()
        return session.result()


def tell(result: RunResult) -> None:
    """Prints what a run made."""
    for note in result.notes:
        put(f"  note     {note}")
    put(f"  report   {result.report}")
    put(f"  lora     {result.lora}")
    put(f"  concept  {result.concept}")
    put_scores(result)


def _ending(result: RunResult, wall: float) -> str:
    return "nothing to do, everything was found" if result.found else f"done in {wall:.0f} s"
