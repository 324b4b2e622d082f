"""`watch` and `schema`: data drops become runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flows.cli.output import put
from flows.environment import join_servers, prepare_environment
from pipeline_lib.drops.places import drops_home, inbox_of
from pipeline_lib.errors import ConfigError
from pipeline_lib.run_config import RunConfig, load_config
from pipeline_lib.steps.state import StateFolder


def drops_template(config: str) -> RunConfig:
    """Base, method and training of runs that come of drops, looked at before the first one is refused for them.

    Args:
        config: a file; empty: the defaults.

    Returns:
        The config, without inputs.

    Raises:
        InputError: the file cannot be read, or says something that no run can use.
    """
    from pipeline_lib.steps.check import check_service

    template = load_config(Path(config)) if config else RunConfig()
    if template.concept.inputs:
        raise ConfigError(f"{config}: `concept.inputs` is set", fix="leave it out: the inputs are the drops")
    check_service(template)
    return template


def watch_drops(place: str, config: str) -> None:
    """Watches an inbox until Ctrl-C.

    Args:
        place: a folder that holds the inbox, or the URL of an object store; empty: `drops` in the state folder.
        config: a file with base, method and training of every run; empty: the defaults.

    Raises:
        ConfigError: the config cannot be used, or there is no server.
    """
    state = StateFolder.open()
    state.make()
    template = drops_template(config)
    prepare_environment(state, quiet=True)
    if not join_servers(state) and not os.environ.get("PREFECT_API_URL"):
        raise ConfigError("there is no server that could run drops", fix="start one: mannerism up")
    from flows.ingest import watch_inbox

    home = drops_home(place, state)
    _tell(f"watching {inbox_of(place, state)}")
    watch_inbox(place or str(home), home, template, _tell)


def _tell(text: str) -> None:
    """At once: in a log, too, the last sentence is the one that is looked for."""
    put(text)
    sys.stdout.flush()
