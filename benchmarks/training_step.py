"""Our training step beside a bare loop of the same mathematics, in one run.

    python -m benchmarks.training_step [--json] [--base FOLDER] [--steps N]

The bare loop is what one would write by hand: PEFT's LoRA on the transformer, random windows, noise and
sigma, forward, mean squared error, backward, clipping, fused AdamW. Both run alternately in one process,
so that whatever else the machine does hits both; medians are compared. Rows: Stage I's mathematics with the
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
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers.training_utils import compute_density_for_timestep_sampling
from peft import LoraConfig
from torch import Tensor

from pipeline_lib.methods.method import StageInputs
from pipeline_lib.methods.set_and_sequence.method import SetAndSequence
from pipeline_lib.methods.settings import settings_from
from pipeline_lib.models.adapter import Adapter, AdapterSettings
from pipeline_lib.models.base import BaseModel, Conditioning
from pipeline_lib.models.load import load_base
from pipeline_lib.pocket.zoo import zoo_folder
from pipeline_lib.training.data import LatentSet, PriorData, TextBank, TrainingData
from pipeline_lib.training.loop import make_optimizer, train_step

BATCH, RANK = 8, 8
OFF = {"identity_dropout": 0.0, "motion_dropout": 0.0, "token_drop": 0.0, "prior_weight": 0.0}
Step = Callable[[int], Any]


class Row(NamedTuple):
    """One row of the table."""

    motion: bool
    regularised: bool


ROWS = (Row(False, False), Row(False, True), Row(True, True))


def _random_data(base: BaseModel, regularised: bool) -> tuple[TrainingData, PriorData]:
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


def our_step(base: BaseModel, row: Row) -> Step:
    """The engine's own step, on clips in every row."""
    method = SetAndSequence()
    data, prior = _random_data(base, row.regularised)
    settings = settings_from(method, "portable", {"rank": RANK, "batch": BATCH, **({} if row.regularised else OFF)})
    identity, motion = method.plan(settings, has_clips=True)
    spec = motion if row.motion else identity.model_copy(update={"data": "clips"})
    with tempfile.TemporaryDirectory() as folder:
        inputs = StageInputs(
            data=data,
            prior=prior if row.regularised else None,
            previous=_some_identity(base, Path(folder)) if row.motion else None,
            seed=0,
            micro_batch=1_000,
        )
        stage = method.build(spec, base, inputs)
    optimizer = make_optimizer(stage)
    return lambda step: train_step(stage, optimizer, step)


def _some_identity(base: BaseModel, folder: Path) -> Path:
    """A Stage I result whose basis is not zero."""
    settings = AdapterSettings(rank=RANK, targets=base.spec.lora_targets)
    adapter = Adapter.attach(base.experts()[0][1], settings, seed=0)
    for factor in adapter.factors("basis").values():
        factor.data.normal_(std=0.01)
    adapter.triple().save(folder / "triple.safetensors")
    adapter.detach()
    return folder


def bare_step(base: BaseModel, row: Row) -> Step:
    """What one would write by hand on PEFT and diffusers, of the same mathematics."""
    data, prior = _random_data(base, row.regularised)
    denoiser: Any = base.experts()[0][1]
    denoiser.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(base.spec.lora_targets)))
    learned = "lora_A" if row.motion else "lora_"
    learning = []
    for name, parameter in denoiser.named_parameters():
        parameter.requires_grad_(learned in name)
        if learned in name:
            learning.append(parameter)
        elif "lora_B" in name:
            parameter.data.normal_(std=0.01)
    optimizer = torch.optim.AdamW(learning, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    sources = [(data.windows, data.clip_text)] + ([(prior.clips, prior.text)] if row.regularised else [])

    def step(_: int) -> Tensor:
        clean = torch.cat([latents.latents[torch.randint(len(latents), (BATCH,))] for latents, _ in sources])
        text = Conditioning.cat([bank.conditioning.take([0] * BATCH) for _, bank in sources])
        noise = torch.randn_like(clean)
        sigma = compute_density_for_timestep_sampling("logit_normal", len(clean), logit_mean=0.0, logit_std=1.0)
        scale = sigma.view(-1, 1, 1, 1, 1)
        velocity = base.velocity((1 - scale) * clean + scale * noise, sigma, text)
        loss = torch.nn.functional.mse_loss(velocity, noise - clean)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 0.05)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def peak_bytes(step: Step) -> int:
    """Peak of live tensor bytes that one step adds, replayed from the profiler's allocation events."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, record_shapes=False
    ) as profile:
        step(0)
    live = peak = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


def compare(folder: str, row: Row, steps: int) -> dict[str, float | str]:
    """Alternates the two loops and compares medians."""
    ours, bare = our_step(load_base(folder), row), bare_step(load_base(folder), row)
    loops = {"ours": ours, "bare": bare}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for step in range(steps + 2):
        for name in sorted(loops, reverse=bool(step % 2)):
            started = time.perf_counter()
            loops[name](step)
            if step >= 2:
                seconds[name].append(time.perf_counter() - started)
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
