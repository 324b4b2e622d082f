"""Our training step beside a bare loop of the same mathematics, in one run.

    python -m benchmarks.training_step [--json] [--base FOLDER] [--steps N]

The bare loop is what one would write by hand (:mod:`benchmarks.loops`). Both run alternately in one process, so that
whatever else the machine does hits both; medians are compared. Rows: Stage I's mathematics with the
regularisers off, then both stages with them on (coefficient dropout, token masking and prior preservation; the
bare loop then also draws the prior batch, and in Stage II learns the same number of factors).
Peak memory is that of the tensors, counted by the profiler, of one step each.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.loops import Step, add_lora, alternate, bare_step, cached, hand_optimizer, our_step, peak_bytes
from pipeline_lib.methods.method import StageInputs
from pipeline_lib.methods.set_and_sequence.method import SetAndSequence
from pipeline_lib.methods.settings import settings_from
from pipeline_lib.models.adapter import Adapter, AdapterSettings
from pipeline_lib.models.base import BaseModel
from pipeline_lib.models.load import load_base
from pipeline_lib.pocket.zoo import zoo_folder
from pipeline_lib.training.data import LatentSet, PriorData, TextBank, TrainingData
from pipeline_lib.training.stage import Stage

BATCH, RANK = 8, 8
OFF = {"identity_dropout": 0.0, "motion_dropout": 0.0, "token_drop": 0.0, "prior_weight": 0.0}


class Row(NamedTuple):
    """One row of the table."""

    motion: bool
    regularised: bool


ROWS = (Row(False, False), Row(False, True), Row(True, True))


def random_data(base: BaseModel, regularised: bool) -> tuple[TrainingData, PriorData]:
    """What a stage learns from: random latents at the base's own size, and their texts."""
    rules = base.spec.frame_rules
    draw = torch.Generator().manual_seed(0)
    one = base.encode_video(torch.rand(1, 3, rules.num_frames, rules.height, rules.width, generator=draw) * 2 - 1)
    latents = torch.randn(4, *one.shape[1:], generator=draw)
    prompt = "a zwx creature, red with two eyes, bouncing up and down, on the beach, in daylight"
    count = len(base.token_spans(prompt))
    texts = base.compact(base.encode_text([prompt] * 5, [(), (1,), (2,), (3, 4), (5,)]))
    variants = 5 if regularised else 1
    bank = TextBank((prompt,), variants, texts.take(range(variants)), {}, (count,))
    clips = LatentSet(latents, torch.zeros(4, dtype=torch.long))
    frames = LatentSet(latents[:, :, :1], clips.prompt)
    return TrainingData(frames, frames, clips, bank, bank), PriorData(frames, clips, bank)


def _stage(base: BaseModel, row: Row) -> Stage:
    method = SetAndSequence()
    data, prior = random_data(base, row.regularised)
    settings = settings_from(method, "portable", {"rank": RANK, "batch": BATCH, **({} if row.regularised else OFF)})
    identity, motion = method.plan(settings, has_clips=True)
    spec = motion if row.motion else identity.model_copy(update={"data": "clips"})
    with tempfile.TemporaryDirectory() as folder:
        inputs = StageInputs(
            data=data,
            prior=prior if row.regularised else None,
            previous=some_identity(base, Path(folder)) if row.motion else None,
            seed=0,
            micro_batch=1_000,
        )
        return method.build(spec, base, inputs)


def some_identity(base: BaseModel, folder: Path) -> Path:
    """A Stage I result whose basis is not zero."""
    settings = AdapterSettings(rank=RANK, targets=base.spec.lora_targets)
    adapter = Adapter.attach(base.experts()[0][1], settings, seed=0)
    for factor in adapter.factors("basis").values():
        factor.data.normal_(std=0.01)
    adapter.triple().save(folder / "triple.safetensors")
    adapter.detach()
    return folder


def our_loop(base: BaseModel, row: Row) -> Step:
    """The engine's own step, on clips in every row."""
    return our_step(_stage(base, row))


def bare_loop(base: BaseModel, row: Row) -> Step:
    """The same mathematics by hand."""
    data, prior = random_data(base, row.regularised)
    sources = [(data.windows, data.clip_text)] + ([(prior.clips, prior.text)] if row.regularised else [])
    learning = add_lora(base, RANK, "lora_A" if row.motion else "lora_")
    return bare_step(base, hand_optimizer(learning), cached(sources, BATCH))


def compare(folder: str, row: Row, steps: int) -> dict[str, float | str]:
    """Alternates the two loops and compares medians."""
    loops = {"ours": our_loop(load_base(folder), row), "bare": bare_loop(load_base(folder), row)}
    seconds = alternate(loops, steps, torch.device("cpu"))
    memory = {name: peak_bytes(loop) for name, loop in loops.items()}
    median = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "stage": "motion" if row.motion else "identity",
        "regularisers": "on" if row.regularised else "off",
        "seconds_ours": round(median["ours"], 4),
        "seconds_bare": round(median["bare"], 4),
        "time_ratio": round(median["ours"] / median["bare"], 3),
        "megabytes_ours": round(memory["ours"] / 1e6, 1),
        "megabytes_bare": round(memory["bare"] / 1e6, 1),
        "memory_ratio": round(memory["ours"] / memory["bare"], 3),
    }


def main() -> None:
    """Prints one table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--base", default=str(zoo_folder("base")), help="a diffusers folder (default: the pocket base)")
    parser.add_argument("--steps", type=int, default=15)
    arguments = parser.parse_args()
    rows = [compare(arguments.base, row, arguments.steps) for row in ROWS]
    facts = {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.processor() or "cpu"}
    if arguments.json:
        print(json.dumps({**rows[0], "rows": rows, **facts}))
        return
    for name in rows[0]:
        print(f"{name:18}", *(f"{row[name]!s:>10}" for row in rows))


if __name__ == "__main__":
    main()
