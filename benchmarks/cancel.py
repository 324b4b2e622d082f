"""How long a cancelled training goes on: from the button and from the signal to the end of the process that trains.

    python -m benchmarks.cancel [--rounds N] [--json]

`mannerism up` runs in a temporary folder. A small personalisation is cancelled at a random moment of its training, in
turn as the UI does it (its state becomes Cancelling; Prefect's worker has to see that and sends the signal) and by the
signal itself to the flow process. Times are those until the worker child is gone and until Prefect says that the run
has ended: Cancelled by the button, Crashed by the signal. A round is good when it has, a checkpoint was written after
the cancel, no lock is held, no process of the run is left, and, after a signal, the child was gone within five seconds
and the second that no step here takes.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks.live import ENDED, Live, is_held, live_folder, wait_for
from benchmarks.small_run import small_run
from pipeline_lib.run_config import RunConfig, with_settings

PATIENCE = 600.0
LATEST = 8.0
"""Seconds of training within which a cancel comes."""
ENDS, BAR = {"button": "CANCELLED", "signal": "CRASHED"}, 6.0
STEPS = 4000
"""Of each stage: no training ends before it is cancelled."""


@dataclass(frozen=True)
class Cancelled:
    """One cancelled run.

    Attributes:
        how: `button` or `signal`.
        at: seconds from its first checkpoint to the cancel.
        child_gone: seconds from the cancel until the process that trains is gone.
        run_ended: seconds from the cancel until Prefect says so.
        state: that the run ended in.
        wrong: what was not as it should be.
    """

    how: str
    at: float
    child_gone: float
    run_ended: float
    state: str
    wrong: tuple[str, ...]


def cancel(live: Live, config: RunConfig, how: str, at: float) -> Cancelled:
    """Starts a run, cancels it, and waits for its end.

    Args:
        live: takes it, on an empty store.
        config: of the run.
        how: `button` or `signal`.
        at: seconds from the first checkpoint to the cancel.

    Returns:
        What came of it.
    """
    for folder in (live.state.store.root, live.state.runs):
        shutil.rmtree(folder, ignore_errors=True)
    run = live.submit(config)
    wait_for(lambda: _checkpoints(live), PATIENCE, "a checkpoint")
    time.sleep(at)
    child, flow = (_process(live, run, word) for word in ("pipeline_lib.worker", "prefect.engine"))
    started, cancelled = time.monotonic(), time.time()
    if how == "button":
        live.cancel(run)
    else:
        flow.terminate()
    wait_for(lambda: not child.is_running(), PATIENCE, "the end of the worker child")
    gone = time.monotonic() - started
    wait_for(lambda: live.state_of(run) in ENDED, PATIENCE, "the end of the run")
    ended, state = time.monotonic() - started, live.state_of(run)
    wait_for(lambda: not _of_run(live, run), PATIENCE, "the end of all its processes")
    written = max(path.stat().st_mtime for path in _checkpoints(live))
    held = [path.name for path in live.locks.glob("*.lock") if is_held(path)]
    wrong = [f"locks held: {held}"] * bool(held) + ["the checkpoint is older"] * (written < cancelled)
    wrong += [f"the run is {state}"] * (state != ENDS[how]) + ["over the bar"] * (how == "signal" and gone > BAR)
    return Cancelled(how, round(at, 2), round(gone, 2), round(ended, 2), state, tuple(wrong))


def _process(live: Live, run: str, word: str) -> psutil.Process:
    found = live.started(word, run=run)
    if found is None:
        raise RuntimeError(f"the run trains, but there is no process {word}")
    return found


def _checkpoints(live: Live) -> list[Path]:
    return list(live.state.store.root.glob("work/stage/*/checkpoint.safetensors"))


def _of_run(live: Live, run: str) -> list[int]:
    return [process.pid for process, environment in live.processes() if run in environment.values()]


def measure(rounds: int, seed: int) -> list[Cancelled]:
    """All rounds, button and signal in turn.

    Args:
        rounds: of both together.
        seed: of the moments.

    Returns:
        What came of each.
    """
    moments, found = random.Random(seed), []
    with live_folder() as live:
        steps = [f"method.settings.{stage}_steps={STEPS}" for stage in ("identity", "motion")]
        for number in range(rounds):
            config = with_settings(small_run(live.root), [*steps, f"seed={number}"])
            found.append(cancel(live, config, ("button", "signal")[number % 2], moments.uniform(0, LATEST)))
            print(found[-1], file=sys.stderr, flush=True)
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.rounds, arguments.seed)
    if arguments.json:
        print(json.dumps([asdict(one) for one in found]))
    else:
        for one in found:
            print("  ".join(f"{key} {value}" for key, value in asdict(one).items() if value))
    sys.exit(1 if any(one.wrong for one in found) else 0)


if __name__ == "__main__":
    main()
