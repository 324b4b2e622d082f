"""One preset over the gizmos of the pocket world, against the truth: who it is, how it moves, what edits show.

    python -m benchmarks.gizmos [--preset demo] [--gizmos reporting] [--seeds 0] [--set key=value ...] [--json]

Each gizmo is learned from its reference clip by the library's own road, one after the other, in one process; all
that is made goes to the artifact store, so a call after a kill goes on and a second call only finds. Rows: the base
(asked for a mere creature), the personalised model, the ceiling (the clip, or the edit as the world renders it,
after the autoencoder) and chance (other gizmos' clips). Means over samples, with the 95 % bootstrap interval over
gizmos from five on. `--results` writes the table into benchmarks/RESULTS.md, `--sheet` a picture of all gizmos.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gizmo_tables import Outcome, as_lines, report, section
from benchmarks.results import RESULTS, put_section
from pipeline_lib.compare.concepts import chosen_gizmos, gizmo_config, gizmo_files
from pipeline_lib.errors import PipelineError
from pipeline_lib.media.sheet import contact_sheet
from pipeline_lib.models.concept import read_concept
from pipeline_lib.personalize import run_in_process
from pipeline_lib.pocket.zoo import zoo_root
from pipeline_lib.records import Prompt
from pipeline_lib.run_config import RunConfig, with_settings
from pipeline_lib.steps.evaluate import load_scores
from pipeline_lib.steps.generate import load_samples
from pipeline_lib.steps.prepare import load_clips
from pipeline_lib.steps.run_folder import RunFolder
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.world.gizmos import gizmo

SHOWN = {"reconstruction": 1, "local": 1, "global": 2}
"""Samples of each kind on the sheet."""


def config_of(index: int, folder: Path, preset: str, base: str, settings: Sequence[str]) -> RunConfig:
    """The run of one gizmo.

    Args:
        index: which gizmo.
        folder: of its clip and prompts.
        preset: of the method.
        base: a folder; empty for the pocket base. The encoders are those of the pocket world either way.
        settings: `key=value`, which go before.

    Returns:
        The config.

    Raises:
        ConfigError: a setting that is not valid.
    """
    config = gizmo_config(index, folder, RunConfig.model_validate({"method": {"preset": preset}}))
    own = []
    if base:
        own.append(f"base.source={Path(base).resolve()}")
        for key, part in (("encoder", "clip"), ("image_encoder", "image"), ("identity_encoder", "identity")):
            if (zoo_root() / part / "config.json").is_file():
                own.append(f"evaluation.{key}={zoo_root() / part}")
    return with_settings(config, [*own, *settings])


def run_gizmo(index: int, config: RunConfig, state: StateFolder) -> Outcome:
    """Learns one gizmo, or finds it learned.

    Args:
        index: which gizmo.
        config: from :func:`config_of`.
        state: the state folder.

    Returns:
        What came out.
    """
    result = run_in_process(config, state, lambda _event: None)
    record = RunFolder(state, result.run_id).record()
    assert record is not None
    samples = load_scores(state.store, record.steps["evaluate"].ref)
    digest = read_concept(Path(result.concept)).record.base_digest
    made = [state.store.get(step.ref).manifest.notes for step in record.steps.values()]
    seconds = sum(float(notes.get("seconds", 0.0)) for notes in made)
    return Outcome(index, result, samples, digest, seconds)


def sheet(outcomes: Sequence[Outcome], state: StateFolder, path: Path) -> Path:
    """A picture of all gizmos: the reference above, samples of the personalised model below.

    Args:
        outcomes: of all gizmos.
        state: the state folder.
        path: of the PNG.

    Returns:
        The path.
    """
    rows = []
    for outcome in outcomes:
        record = RunFolder(state, outcome.result.run_id).record()
        assert record is not None
        name = gizmo(outcome.index).name
        rows += [(f"{name}: the clip", clip.frames) for clip in load_clips(state.store, record.steps["prepare"].ref)]
        left = dict(SHOWN)
        for sample, frames in load_samples(state.store, record.steps["generate-personalised"].ref):
            prompt: Prompt = sample.prompt
            if left.get(prompt.kind, 0) and sample.seed == record.config.samples.seeds[0]:
                left[prompt.kind] -= 1
                rows.append((prompt.text.replace("{subject}", name), frames))
    return contact_sheet(rows, path, columns=13, scale=1)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gizmos", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--preset", default="demo")
    parser.add_argument(
        "--gizmos", default="reporting", help="reporting, tuning, all (both), confirmation, or numbers such as 0,3"
    )
    parser.add_argument("--seeds", default="0", help="of the samples, with commas")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--base", default="", help="another base, a folder (default: the pocket base)")
    parser.add_argument("--state", type=Path, default=None, help="state folder (default: as for runs)")
    parser.add_argument("--sheet", type=Path, default=None, metavar="FOLDER", help="write gizmos.png there")
    parser.add_argument("--results", action="store_true", help="write the table into benchmarks/RESULTS.md")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(given)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs everything.

    Args:
        arguments: of the command line.

    Returns:
        What :func:`report` tells.

    Raises:
        PipelineError: a setting that is not valid, or a run that failed.
    """
    torch.set_num_threads(min(torch.get_num_threads(), len(os.sched_getaffinity(0))))
    indices, state = chosen_gizmos(arguments.gizmos), StateFolder.open(arguments.state)
    folder = state.gizmos
    own = [f"samples.seeds=[{arguments.seeds}]", *arguments.settings]
    configs = {index: config_of(index, folder, arguments.preset, arguments.base, own) for index in indices}
    state.make()
    outcomes = []
    for index, config in configs.items():
        gizmo_files(index, folder)
        outcomes.append(run_gizmo(index, config, state))
        gc.collect()  # a pipeline refers to itself: without this the last base lives on beside the next one
        print(f"{gizmo(index).name}: {outcomes[-1].seconds:.0f} s", file=sys.stderr, flush=True)
    if arguments.sheet:
        sheet(outcomes, state, arguments.sheet / "gizmos.png")
    machine = f"{len(os.sched_getaffinity(0))} cores, torch on {torch.get_num_threads()}"
    facts = {"preset": arguments.preset, "seeds": arguments.seeds, "command": _command(arguments), "machine": machine}
    return report(outcomes, facts)


def _command(arguments: argparse.Namespace) -> str:
    """The call again, with what decides the numbers; a folder of this machine by its name only."""
    parts = [f"--preset {arguments.preset}", f"--gizmos {arguments.gizmos}", f"--seeds {arguments.seeds}"]
    parts += [f"--base {Path(arguments.base).name}"] if arguments.base else []
    parts += [f"--set {setting}" for setting in arguments.settings]
    return f"python -m benchmarks.gizmos {' '.join(parts)}"


def main(given: Sequence[str] | None = None) -> None:
    """Prints tables, or one JSON object.

    Args:
        given: the command line's arguments; None takes the process's own.
    """
    arguments = _arguments(given)
    try:
        told = measure(arguments)
    except PipelineError as error:
        sys.exit(f"error: {error}")
    if arguments.results:
        own = [f"base {Path(arguments.base).name}"] if arguments.base else []
        title = ", ".join([f"Gizmos: preset {arguments.preset}", arguments.gizmos, *own, *arguments.settings])
        put_section(RESULTS, title, section(told))
    print(json.dumps(told, indent=1) if arguments.json else "\n".join(as_lines(told)))


if __name__ == "__main__":
    main()
