"""Step time, peak memory and model FLOPs used of every family at real size, with random weights.

    python -m benchmarks.families --counts                     what can be counted without a GPU
    python -m benchmarks.families --family wan-1.3b --compile  measured; needs no network and no weights
    python -m benchmarks.families --tiny --device cpu          the whole road on tiny folders

Three arms: ours (the engine's own step on cached latents and text), a bare loop of the same mathematics, and the usual
trainer's way, the same loop with the autoencoder and the text encoder inside the step. They run alternately in one
process. Peak memory is that of one arm: everything it holds on the device while the others' tensors are left out; on a
CPU what one step adds.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch

from benchmarks.arms import ARMS, Arms, Options, arm_peak
from benchmarks.family_sizes import SIZES, FamilySize, Goal
from benchmarks.flops import SizeCounts, count_size, model_flops_used
from benchmarks.loops import Step, alternate
from benchmarks.random_base import write_folder
from benchmarks.results import RESULTS, put_section
from pipeline_lib.errors import PipelineError, ResourceError
from pipeline_lib.models.economy import Storage
from pipeline_lib.steps.speed import peak_flops

REFERENCE = "H200"
Line = dict[str, Any]


def count_line(size: FamilySize, rank: int) -> Line:
    """What is counted of one size, and what its goal asks of the device.

    Args:
        size: checkpoint and video.
        rank: of the LoRA.

    Returns:
        One line of the table of counts.
    """
    counts = count_size(size, rank)
    peak = peak_flops(REFERENCE) or 0.0
    flops = counts.flops
    return {
        "name": size.name,
        "video": size.label,
        "storage": size.storage,
        "tokens": counts.tokens,
        "billions": round(counts.parameters / 1e9, 2),
        "forward_tflop": round(flops.forward / 1e12, 1),
        "step_tflop": round(flops.step / 1e12, 1),
        "attention_share": round(flops.attention / flops.step, 2),
        "recomputed_tflop": round(flops.recomputed / 1e12, 1),
        "ideal_seconds": round(flops.step / peak, 3),
        "ideal_recomputed_seconds": round(flops.recomputed / peak, 3),
        "memory_floor_gigabytes": round(counts.memory_floor / 1e9, 1),
        "goal": str(size.goal),
        "needs": _needs(size.goal, counts, peak),
    }


def _needs(goal: Goal, counts: SizeCounts, peak: float) -> str:
    """The goal in the other unit."""
    parts = []
    if goal.mfu:
        parts.append(f"{counts.flops.step / peak / goal.mfu:.2f} s a step")
    if goal.seconds:
        parts.append(f"MFU {counts.flops.step / peak / goal.seconds:.2f}")
        parts.append(f"{counts.flops.recomputed / goal.seconds / 1e12:.0f} TFLOP/s with all blocks recomputed")
    if goal.gigabytes:
        left = goal.gigabytes - counts.memory_floor / 1e9
        parts.append(f"{left:.1f} GB for activations" if left > 0 else "less memory than the floor")
    return ", ".join(parts)


def measure(size: FamilySize, options: Options) -> list[Line]:
    """Measures the arms of one size.

    Args:
        size: checkpoint and video.
        options: how.

    Returns:
        One line for each arm; an arm that does not fit tells so.
    """
    device = options.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    lines: dict[str, Line] = {}
    steps: dict[str, Step] = {}
    with TemporaryDirectory() as folder:
        path = size.tiny(Path(folder)) if options.tiny else write_folder(size, Path(folder))
        arms = Arms(path, size, options)
        for arm in options.arms:
            lines[arm] = {"name": size.name, "video": arms.label, "arm": arm, "storage": arms.economy.storage}
            try:
                steps[arm], peak = arm_peak(arms, arm)
                lines[arm]["peak_gigabytes"] = round(peak / 1e9, 2 if device.type == "cuda" else 4)
            except (torch.OutOfMemoryError, ResourceError):
                steps.pop(arm, None)
                lines[arm]["note"] = "out of memory"
        seconds = alternate(steps, options.steps, device)
    full = arms.economy.storage == "full" and not options.tiny
    flops = count_size(size, options.rank).flops.step if full and peak_flops(name) else None
    for measured, times in seconds.items():
        median = statistics.median(times)
        used = model_flops_used(flops, median, name) if flops else None
        lines[measured] |= {"seconds": round(median, 4), "mfu": None if used is None else round(used, 3)}
    if "ours" in lines and not options.tiny:
        lines["ours"] |= {"goal": str(size.goal), "met": _met(size.goal, lines["ours"])}
    return list(lines.values())


def _met(goal: Goal, line: Line) -> bool | None:
    """Whether a measured line meets its goal; None where there is none, or where a figure is missing."""
    at_most = {"seconds": goal.seconds, "peak_gigabytes": goal.gigabytes}
    asked = [name for name, bar in {**at_most, "mfu": goal.mfu}.items() if bar is not None]
    if not asked or any(line.get(name) is None for name in asked):
        return None
    below = all(line[name] <= bar for name, bar in at_most.items() if bar is not None)
    return below and (goal.mfu is None or bool(line["mfu"] >= goal.mfu))


def table(lines: Sequence[Line]) -> list[str]:
    """Lines as a Markdown table, with the columns of all of them."""
    columns = list(dict.fromkeys(column for line in lines for column in line))
    rows = [[_cell(line.get(column)) for column in columns] for line in lines]
    return ["| " + " | ".join(row) + " |" for row in [columns, ["---"] * len(columns), *rows]]


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _facts(options: Options) -> dict[str, Any]:
    device = options.device
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "commit": commit.stdout.strip() or "unknown",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {platform.machine()}",
        "torch": torch.__version__,
        "rank": options.rank,
        "recompute": options.recompute,
        "keep_attention": options.keep_attention,
        "compiled": options.compiled,
    }


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.families", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("--family", action="append", choices=[*SIZES, "all"], help="a size; may be repeated")
    parser.add_argument("--counts", action="store_true", help="count only; nothing is computed")
    parser.add_argument("--tiny", action="store_true", help="tiny folders of the same classes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=10, help="measured steps of each arm")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--compile", action="store_true", help="compile each repeated block")
    parser.add_argument("--no-recompute", action="store_true", help="keep all activations")
    parser.add_argument("--keep-attention", action="store_true", help="recompute all but attention, in our arm")
    parser.add_argument("--storage", choices=get_args(Storage), help="of the frozen weights (default: the size's)")
    parser.add_argument("--swapped-blocks", type=int, default=0, help="blocks that live on the host")
    parser.add_argument("--results", action="store_true", help="write the table into benchmarks/RESULTS.md")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(given)
    if not (arguments.counts or arguments.tiny) and arguments.device == "cpu":
        parser.error("real sizes need a GPU: give --counts, or --tiny")
    return arguments


def _options(arguments: argparse.Namespace) -> Options:
    return Options(
        device=torch.device(arguments.device),
        steps=arguments.steps,
        rank=arguments.rank,
        arms=tuple(arm for arm in ARMS if arm in arguments.arms),
        recompute=not arguments.no_recompute,
        keep_attention=arguments.keep_attention,
        compiled=arguments.compile,
        storage=arguments.storage,
        swapped_blocks=arguments.swapped_blocks,
        dtype=torch.float32 if arguments.tiny else torch.bfloat16,
        tiny=arguments.tiny,
    )


def _lines(names: Sequence[str], options: Options, *, counts: bool) -> list[Line]:
    lines: list[Line] = []
    for name in names:
        print(name, file=sys.stderr, flush=True)
        lines += [count_line(SIZES[name], options.rank)] if counts else measure(SIZES[name], options)
        gc.collect()
        if options.device.type == "cuda":
            torch.cuda.empty_cache()
    return lines


def _section(facts: Mapping[str, Any], lines: Sequence[Line]) -> list[str]:
    return [", ".join(f"{name} {value}" for name, value in facts.items()) + ".", "", *table(lines)]


def main(given: Sequence[str] | None = None) -> None:
    """Prints one table, or one JSON object.

    Args:
        given: the command line's arguments; None takes the process's own.
    """
    arguments = _arguments(given)
    options = _options(arguments)
    chosen = arguments.family or ["all"]
    try:
        lines = _lines(list(SIZES) if "all" in chosen else chosen, options, counts=arguments.counts)
    except PipelineError as error:
        sys.exit(f"error: {error}")
    facts = _facts(options)
    if arguments.results:
        some = "" if options.arms == ARMS else f" ({', '.join(options.arms)})"
        kind = "counted" if arguments.counts else f"measured on {facts['device']}: {', '.join(chosen)}{some}"
        put_section(RESULTS, f"Families at real size, {kind}", _section(facts, lines))
    print(json.dumps({**facts, "lines": lines}, indent=1) if arguments.json else "\n".join(_section(facts, lines)))


if __name__ == "__main__":
    main()
