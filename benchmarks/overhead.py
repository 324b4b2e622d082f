"""What orchestration costs: a run through `mannerism up`'s server, worker and MLflow beside the same in plain Python.

    python -m benchmarks.overhead [--steps 40,400] [--rounds N] [--json]

The same small personalisation runs in turn as a program that calls the library (no Prefect, no MLflow, no child), and
as a flow run of the deployment, at two lengths. Processor time is counted over all processes: what is spent outside of
the worker child is orchestration, and two lengths part it into a fixed cost and one for each second of work; servers
cost something while nothing runs, too. From these follows what is added to a run of ten minutes. The wall is told
beside it: what a run takes beside its stages. `up` is timed on a state folder that it has used before.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks.live import ENDED, Live, live_folder
from benchmarks.small_run import small_run
from pipeline_lib.run_config import RunConfig, config_text, with_settings
from pipeline_lib.steps.run_folder import RunFolder, run_identity
from pipeline_lib.steps.state import StateFolder

TEN_MINUTES = 600.0
IDLE_SECONDS = 30.0
LOOK_SECONDS = 1.0
PLAIN = """
import sys
from pathlib import Path
from pipeline_lib.personalize import run_in_process
from pipeline_lib.run_config import load_config
from pipeline_lib.steps.state import StateFolder

run_in_process(load_config(Path(sys.argv[1])), StateFolder.open(Path(sys.argv[2])), lambda event: None)
"""


@dataclass(frozen=True)
class Cost:
    """Of one run, in seconds.

    Attributes:
        steps: of each training stage.
        wall: from submission, or from the program's start, to the end.
        stages: sum of its stages, as they tell themselves.
        cpu: processor time of all that takes part.
        model_cpu: of it, the process that does the model work.
    """

    steps: int
    wall: float
    stages: float
    cpu: float
    model_cpu: float

    @property
    def outside(self) -> float:
        """Processor time of all but the model work."""
        return self.cpu - self.model_cpu

    @property
    def beside(self) -> float:
        """Wall beside the stages."""
        return self.wall - self.stages


def plain(config: RunConfig, root: Path) -> Cost:
    """The library called by a program of its own.

    Args:
        config: of the run.
        root: gets a fresh state folder.

    Returns:
        What it cost.
    """
    state = StateFolder.open(root / "plain")
    shutil.rmtree(state.root, ignore_errors=True)
    path = root / "plain.yaml"
    path.write_text(config_text(config))
    started = time.monotonic()
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([sys.executable, "-c", PLAIN, str(path), str(state.root)], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"the plain run ended with {os.waitstatus_to_exitcode(status)}")
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(_steps(config), time.monotonic() - started, _stages(config, state), cpu, cpu)


def deployed(config: RunConfig, live: Live) -> Cost:
    """The same as a flow run of the deployment.

    Args:
        config: of the run.
        live: takes it, on an empty store.

    Returns:
        What it cost.
    """
    for folder in (live.state.store.root, live.state.runs):
        shutil.rmtree(folder, ignore_errors=True)
    before, started, model_cpu = live.cpu_seconds(), time.monotonic(), 0.0
    run = live.submit(config)
    while (state := live.state_of(run)) not in ENDED:
        model_cpu = max(model_cpu, _spent(live.started("pipeline_lib.worker", run=run)))
        time.sleep(LOOK_SECONDS)
    if state != "COMPLETED":
        raise RuntimeError(f"the flow run is {state}: {live.states_of(run)[-1]}")
    wall = time.monotonic() - started
    while any(run in environment.values() for _, environment in live.processes()):
        time.sleep(LOOK_SECONDS)  # its time is counted when it has ended
    return Cost(_steps(config), wall, _stages(config, live.state), live.cpu_seconds() - before, model_cpu)


def _spent(process: psutil.Process | None) -> float:
    with suppress(psutil.Error):
        return sum(process.cpu_times()[:4]) if process is not None else 0.0
    return 0.0


def _steps(config: RunConfig) -> int:
    return int(config.method.settings["identity_steps"])


def _stages(config: RunConfig, state: StateFolder) -> float:
    record = RunFolder(state, run_identity(config)).record()
    assert record is not None
    return sum(step.seconds for step in record.steps.values())


def idle_share(live: Live) -> float:
    """Processor seconds that all servers spend in a second while nothing runs."""
    before, started = live.cpu_seconds(), time.monotonic()
    time.sleep(IDLE_SECONDS)
    return (live.cpu_seconds() - before) / (time.monotonic() - started)


def time_up(root: Path) -> dict[str, float]:
    """Seconds, and processor seconds, until `up` is green; then it is ended."""
    started = time.monotonic()
    live = Live(root)
    try:
        live.wait()
        return {"wall": round(time.monotonic() - started, 1), "cpu": round(live.cpu_seconds(), 1)}
    finally:
        live.end()


def ten_minutes(plains: Sequence[Cost], flows: Sequence[Cost]) -> dict[str, float]:
    """What orchestration adds to ten minutes of work, from runs of two lengths.

    Args:
        plains: runs of the library alone.
        flows: runs through the servers.

    Returns:
        Seconds of processor time, fixed and for each second of work; seconds of wall; both as shares of ten minutes.
    """
    short, long = (_medians([cost for cost in flows if cost.steps == steps]) for steps in _lengths(flows))
    each_second = max(0.0, (long.outside - short.outside) / (long.stages - short.stages))
    fixed = short.outside - each_second * short.stages
    wall = long.beside - _medians([cost for cost in plains if cost.steps == long.steps]).beside
    return {
        "cpu_fixed": round(fixed, 2),
        "cpu_each_second": round(each_second, 4),
        "cpu_share": round((fixed + each_second * TEN_MINUTES) / TEN_MINUTES, 4),
        "wall_added": round(wall, 2),
        "wall_share": round(wall / TEN_MINUTES, 4),
    }


def _lengths(costs: Sequence[Cost]) -> list[int]:
    return sorted({cost.steps for cost in costs})


def _medians(costs: Sequence[Cost]) -> Cost:
    names = ("wall", "stages", "cpu", "model_cpu")
    return Cost(costs[0].steps, **{name: statistics.median(getattr(cost, name) for cost in costs) for name in names})


def run(lengths: Sequence[int], rounds: int) -> dict[str, object]:
    """All runs, in turn.

    Args:
        lengths: two numbers of steps of each stage.
        rounds: of each.

    Returns:
        Each run's cost, and what follows from them.
    """
    plains, flows = [], []
    with live_folder() as live:
        config = small_run(live.root)
        idle = idle_share(live)
        for _ in range(rounds):
            for steps in lengths:
                chosen = [f"method.settings.{stage}_steps={steps}" for stage in ("identity", "motion")]
                asked = with_settings(config, [*chosen, "training.checkpoint_every=100"])
                plains.append(plain(asked, live.root))
                flows.append(deployed(asked, live))
                print(f"{steps} steps: plain {plains[-1]}, flow {flows[-1]}", file=sys.stderr, flush=True)
        live.end()
        warm = time_up(live.root)
    return {
        "ten_minutes": ten_minutes(plains, flows),
        "idle_cpu_each_second": round(idle, 4),
        "up_on_used_state": warm,
        "plain": [asdict(cost) for cost in plains],
        "flow": [asdict(cost) for cost in flows],
    }


def main() -> None:
    """Prints what was found, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", default="40,400", help="two lengths of each training stage")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    done = run([int(text) for text in arguments.steps.split(",")], arguments.rounds)
    if arguments.json:
        print(json.dumps(done))
        return
    for name, value in done.items():
        print(f"{name:22} {value}")


if __name__ == "__main__":
    main()
