"""`run`, `demo` and `resume`: one config, all the way."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from flows.cli.output import console, put, put_json
from flows.cli.view import RunView
from flows.environment import prepare_environment
from pipeline_lib.run_config import RunConfig, load_config, with_settings
from pipeline_lib.steps.run_folder import RunResult, find_run
from pipeline_lib.steps.state import StateFolder

CONFIG_SUFFIXES = (".yaml", ".yml")


def asked_config(source: str, options: Mapping[str, Any], settings: Sequence[str]) -> RunConfig:
    """The config that a command line asks for.

    Args:
        source: a config file, or something to learn from.
        options: setting to value; empty ones are left alone.
        settings: `key=value`, which go before.
    """
    path = Path(source).expanduser()
    if path.suffix.lower() in CONFIG_SUFFIXES:
        config = load_config(path)
    else:
        config = RunConfig.model_validate({"concept": {"inputs": [str(path.absolute())]}})
    given = [f"{key}={yaml.safe_dump(value, width=1 << 20)}" for key, value in options.items() if value != ""]
    return with_settings(config, [*given, *settings])


def demo_config(settings: Sequence[str]) -> RunConfig:
    """A creature of the pocket world that the pocket base has never seen, learned with the preset `demo`."""
    from pipeline_lib.media.write import write_video
    from pipeline_lib.world.gizmos import CLASS_NOUN, REPORTING, gizmo
    from pipeline_lib.world.render import render

    creature = gizmo(REPORTING[0])
    clip = StateFolder.open().root / "demo" / f"{creature.name.lower()}.mp4"
    if not clip.is_file():
        write_video(render(creature.reference).frames, clip, FRAMES_PER_SECOND)
    prompts = [prompt for prompt in creature.editing_prompts if prompt.kind == "reconstruction"]
    for kind, count in (("local", 2), ("global", 3)):
        prompts += [prompt for prompt in creature.editing_prompts if prompt.kind == kind][:count]
    config = RunConfig.model_validate(
        {
            "concept": {"name": creature.name, "inputs": [str(clip)], "subject": CLASS_NOUN},
            "captions": [_split_caption(creature.caption, creature.motion_caption)],
            "base": {"source": "pocket"},
            "method": {"preset": "demo"},
            "samples": {"prompts": [prompt.text for prompt in prompts]},
        }
    )
    return with_settings(config, settings)


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
        _tell(result, wall)


def _run(config: RunConfig, state: StateFolder, view: RunView) -> RunResult:
    prepare_environment(state, quiet=True)
    from tasks.session import RunSession, opened

    session = RunSession(config, state, view.on_event)
    if session.finished is not None:
        return session.result()
    with opened(session):  # the worker loads while Prefect is imported and its server starts
        from flows.personalize import personalize

        personalize(config)
        view.finish()
        return session.result()


def _tell(result: RunResult, wall: float) -> None:
    put(f"{result.run_id}: {'nothing to do, everything was found' if result.found else f'done in {wall:.0f} s'}")
    for note in result.notes:
        put(f"  note     {note}")
    put(f"  report   {result.report}")
    put(f"  lora     {result.lora}")
    put(f"  concept  {result.concept}")
    _tell_scores(result)


def _tell_scores(result: RunResult) -> None:
    from flows.cli.output import put_table

    rows = [row for row in ("base", "personalised", "ceiling") if row in result.scores]
    names = dict.fromkeys(name for row in rows for name in result.scores[row])
    put()
    put_table(
        [
            {"score": name, **{row: _short(result.scores[row].get(name)) for row in rows}}
            for name in names
        ]
    )


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
