"""The training loops that are measured beside each other, and how: alternating steps, medians, peak memory.

The bare loop is what one would write by hand: PEFT's LoRA on the transformer, random windows, noise and sigma,
forward, mean squared error, backward, clipping, fused AdamW.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers.training_utils import compute_density_for_timestep_sampling
from peft import LoraConfig
from torch import Tensor, nn

from pipeline_lib.models.base import BaseModel, Conditioning
from pipeline_lib.training.data import LatentSet, TextBank
from pipeline_lib.training.loop import make_optimizer, train_step
from pipeline_lib.training.stage import Stage

Step = Callable[[int], Any]
Draw = Callable[[], tuple[Tensor, Conditioning]]
WARM_UP = 2


def our_step(stage: Stage) -> Step:
    """The engine's own step."""
    optimizer = make_optimizer(stage)
    return lambda step: train_step(stage, optimizer, step)


def cached(sources: Sequence[tuple[LatentSet, TextBank]], batch: int) -> Draw:
    """Draws a batch of each source's cached latents, with the text of its first prompt."""

    def draw() -> tuple[Tensor, Conditioning]:
        clean = torch.cat([latents.latents[torch.randint(len(latents), (batch,))] for latents, _ in sources])
        return clean, Conditioning.cat([bank.conditioning.take([0] * batch) for _, bank in sources])

    return draw


def encoded(base: BaseModel, pixels: Tensor, prompt: str) -> Draw:
    """Draws one clip as most trainers do: autoencoder and text encoder run in every step."""
    return lambda: (base.encode_video(pixels), base.encode_text([prompt]))


def add_lora(base: BaseModel, rank: int, learned: str = "lora_") -> list[nn.Parameter]:
    """PEFT's LoRA on all denoisers of a base, in float32.

    Args:
        base: gets it.
        rank: alpha is the same.
        learned: part of the names of what learns; the rest of the LoRA is frozen.

    Returns:
        What learns.
    """
    learning = []
    for _, module in base.experts():
        denoiser: Any = module
        denoiser.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(base.spec.lora_targets)))
        for name, parameter in denoiser.named_parameters():
            parameter.requires_grad_(learned in name)
            if "lora_" in name:
                parameter.data = parameter.data.to(base.device, torch.float32)
            if learned in name:
                learning.append(parameter)
            elif "lora_B" in name:
                parameter.data.normal_(std=0.01)
    return learning


def hand_optimizer(learning: Sequence[nn.Parameter]) -> torch.optim.AdamW:
    """Fused AdamW with the method's settings."""
    return torch.optim.AdamW(list(learning), lr=1e-4, betas=(0.9, 0.99), weight_decay=0.01, fused=True)


def bare_step(base: BaseModel, optimizer: torch.optim.AdamW, draw: Draw) -> Step:
    """What one would write by hand on PEFT and diffusers; under autocast where the base is in half precision.

    Args:
        base: with :func:`add_lora`'s adapter.
        optimizer: of its parameters.
        draw: the batch of a step.

    Returns:
        One step.
    """
    learning = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    device, half = base.device, base.dtype != torch.float32

    def step(_: int) -> Tensor:
        clean, text = draw()
        clean = clean.to(device)
        noise = torch.randn_like(clean)
        sigma = compute_density_for_timestep_sampling("logit_normal", len(clean), logit_mean=0.0, logit_std=1.0)
        sigma = sigma.to(device)
        scale = sigma.view(-1, 1, 1, 1, 1)
        with torch.autocast(device.type, base.dtype if half else None, enabled=half):
            velocity = base.velocity((1 - scale) * clean + scale * noise, sigma, text.to(device))
        loss = torch.nn.functional.mse_loss(velocity.float(), noise - clean)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 0.05)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def alternate(loops: Mapping[str, Step], steps: int, device: torch.device) -> dict[str, list[float]]:
    """Times loops in turn in one process, so that whatever else the machine does hits all.

    Args:
        loops: by name; each also runs :data:`WARM_UP` steps that do not count.
        steps: of each that count.
        device: waited for before the clock is read.

    Returns:
        Seconds of each step, by loop.
    """
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for step in range(steps + WARM_UP):
        for name in sorted(loops, reverse=bool(step % 2)):
            _wait(device)
            started = time.perf_counter()
            loops[name](step)
            _wait(device)
            if step >= WARM_UP:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(step: Step) -> int:
    """Peak of live tensor bytes that one step adds on a CPU, replayed from the profiler's allocation events."""
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
