"""Estimated peak memory of a training step beside the measured one.

    python -m benchmarks.memory [--json] [--base FOLDER] [--device cpu|cuda] [--dtype float32|bfloat16] [--steps N]

Each row is a child process of its own that makes the engine's own step of one stage, with the prior batch, at random
data. On the CPU the measured peak is that of the tensors of one step, counted by the profiler, as in
`benchmarks.training_step`; on CUDA `torch.cuda.max_memory_allocated` over the step less what was allocated before it.
Both leave out weights, factors and moments, whose size nobody has to guess. Seconds are the median of the steps.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.loops import peak_bytes
from benchmarks.training_step import BATCH, RANK, random_data, some_identity
from pipeline_lib.methods.method import StageInputs
from pipeline_lib.methods.set_and_sequence.method import SetAndSequence
from pipeline_lib.methods.settings import settings_from
from pipeline_lib.models.base import BaseModel
from pipeline_lib.models.load import load_base
from pipeline_lib.pocket.zoo import zoo_folder
from pipeline_lib.records import StageSpec
from pipeline_lib.sections import TrainingSection
from pipeline_lib.steps.memory import lesson_of
from pipeline_lib.steps.rehearsal import Rehearsal, Work
from pipeline_lib.steps.speed import rate_of
from pipeline_lib.steps.weightless_stage import step_samples
from pipeline_lib.training.loop import make_optimizer, train_step


class Row(NamedTuple):
    """What is compared."""

    motion: bool
    checkpointing: bool
    micro_batch: int


ROWS = (
    Row(motion=False, checkpointing=False, micro_batch=0),
    Row(motion=True, checkpointing=False, micro_batch=0),
    Row(motion=True, checkpointing=True, micro_batch=0),
    Row(motion=True, checkpointing=False, micro_batch=8),
    Row(motion=True, checkpointing=False, micro_batch=1),
)


def planned(row: Row) -> StageSpec:
    """The stage of a row: frames or clips, rank and batch as in `benchmarks.training_step`."""
    method = SetAndSequence()
    settings = settings_from(method, "portable", {"rank": RANK, "batch": BATCH})
    identity, motion = method.plan(settings, has_clips=True)
    return motion if row.motion else identity


def real_step(base: BaseModel, row: Row) -> Callable[[int], Any]:
    """The engine's own step."""
    data, prior = random_data(base, regularised=True)
    base.free_encoders()
    base.set_gradient_checkpointing(row.checkpointing)
    with tempfile.TemporaryDirectory() as folder:
        inputs = StageInputs(
            data=data,
            prior=prior,
            previous=some_identity(base, Path(folder)) if row.motion else None,
            seed=0,
            micro_batch=row.micro_batch or 1_000,
        )
        stage = SetAndSequence().build(planned(row), base, inputs)
    optimizer = make_optimizer(stage)
    return lambda step: train_step(stage, optimizer, step)


def measured(base: BaseModel, row: Row, steps: int) -> tuple[int, float]:
    """Peak bytes that a step adds, and its seconds."""
    step = real_step(base, row)
    step(0)  # the optimizer's moments are made in the first one
    taken = []
    for index in range(1, steps + 1):
        started = time.perf_counter()
        step(index)
        if base.device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    if base.device.type != "cuda":
        return peak_bytes(step), statistics.median(taken)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(steps + 1)
    return torch.cuda.max_memory_allocated() - before, statistics.median(taken)


def compare(arguments: argparse.Namespace, row: Row) -> dict[str, float | str]:
    """One row, in this process."""
    dtype = getattr(torch, arguments.dtype)
    base = load_base(arguments.base, device=arguments.device, dtype=dtype)
    on_cpu = arguments.device == "cpu"
    rehearsal = Rehearsal(Path(arguments.base), base.spec, dtype, on_cpu=on_cpu)
    training = TrainingSection(micro_batch=row.micro_batch, gradient_checkpointing=row.checkpointing)
    stage = planned(row)
    lesson = lesson_of(stage, training)
    counting = time.perf_counter()
    work = rehearsal.training(lesson)
    _, _, masks = rehearsal.factors(stage)  # drawn in the step, and so in what is measured
    counting = time.perf_counter() - counting
    times = step_samples(stage) / lesson.samples
    rate = rate_of(arguments.device, dtype)
    estimate = rate.seconds(Work(0, work.flops * times, work.moved * times)) if rate else 0.0
    memory, seconds = measured(base, row, arguments.steps)
    expected = work.memory + 4 * masks
    return {
        "stage": stage.name,
        "checkpointing": "on" if row.checkpointing else "off",
        "micro_batch": row.micro_batch or step_samples(stage),
        "estimated_megabytes": round(expected / 1e6, 2),
        "measured_megabytes": round(memory / 1e6, 2),
        "memory_ratio": round(expected / memory, 3),
        "estimated_seconds": round(estimate, 3),
        "measured_seconds": round(seconds, 3),
        "time_ratio": round(estimate / seconds, 3),
        "counting_seconds": round(counting, 2),
    }


def in_children(given: Sequence[str]) -> list[dict[str, float | str]]:
    """All rows, each in a process of its own."""
    rows = []
    for index in range(len(ROWS)):
        child = [sys.executable, "-m", "benchmarks.memory", *given, "--row", str(index)]
        done = subprocess.run(child, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    return rows


def main() -> None:
    """Prints one table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--base", default=str(zoo_folder("base")), help="a diffusers folder (default: the pocket base)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--row", type=int, default=-1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row >= 0:
        print(json.dumps(compare(arguments, ROWS[arguments.row])))
        return
    rows = in_children(sys.argv[1:])
    if arguments.json:
        facts = {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.processor()}
        print(json.dumps({"rows": rows, **facts}))
        return
    for name in rows[0]:
        print(f"{name:20}", *(f"{row[name]!s:>10}" for row in rows))


if __name__ == "__main__":
    main()
