"""`doctor`: what is installed, what the machine has, what a config will use; counted, not guessed."""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.output import put, put_json
from pipeline_lib.errors import PipelineError
from pipeline_lib.run_config import RunConfig, load_config
from pipeline_lib.steps.state import StateFolder

if TYPE_CHECKING:
    from pipeline_lib.registry import MethodChoice
    from pipeline_lib.steps.advice import Need
    from pipeline_lib.steps.cost import Cost, Estimate

PACKAGES = ("torch", "torchvision", "diffusers", "transformers", "peft", "prefect", "mlflow", "av")


def examine(config: str, *, as_json: bool) -> None:
    """Prints the facts; of a config also what it will load and make."""
    facts: dict[str, Any] = {"machine": _machine(), "packages": _packages(), "media": _media(), "state": _state()}
    if config:
        facts["config"] = _config(load_config(Path(config)))
    if as_json:
        put_json(facts)
        return
    for section, values in facts.items():
        put(section)
        for name, value in values.items():
            if not isinstance(value, dict):  # those are for programs
                put(f"  {name:22} {value}")


def _machine() -> dict[str, Any]:
    import psutil
    import torch

    memory = psutil.virtual_memory()
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "cores": psutil.cpu_count(),
        "memory GB": round(memory.total / 1e9, 1),
        "memory free GB": round(memory.available / 1e9, 1),
    }
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        facts[f"cuda:{index}"] = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB"
    return facts if torch.cuda.device_count() else {**facts, "cuda": "none; runs use the CPU"}


def _packages() -> dict[str, str]:
    found = {}
    for name in ("mannerism", *PACKAGES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def _media() -> dict[str, str]:
    from pipeline_lib.media.ffmpeg_command import ffmpeg_binary

    try:
        return {"ffmpeg": str(ffmpeg_binary().path)}
    except PipelineError as error:
        return {"ffmpeg": f"missing: {error}"}


def _state() -> dict[str, Any]:
    state = StateFolder.open()
    used = sum(path.stat().st_size for path in state.root.rglob("*") if path.is_file())
    place = next(path for path in (state.root, *state.root.parents) if path.is_dir())  # it may not be there yet
    return {
        "folder": str(state.root),
        "used GB": round(used / 1e9, 2),
        "disk free GB": round(shutil.disk_usage(place).free / 1e9, 1),
    }


def _config(config: RunConfig) -> dict[str, Any]:
    from pipeline_lib.registry import base_source, choose_method, encoder_folder
    from pipeline_lib.steps.check import check_config
    from pipeline_lib.steps.shelf import resolve_device

    check_config(config)
    choice = choose_method(config)
    device, dtype = resolve_device(config.training)
    facts: dict[str, Any] = {
        "device": f"{device}, {dtype}",
        "method": f"{choice.method.name}, preset {choice.preset}",
        "samples per prompt": 2 * len(config.samples.seeds),
        "scores": "with CLIP" if encoder_folder(config) else "pixels and flow only: no image-text encoder",
    }
    if not Path(base_source(config)).expanduser().is_dir():
        return {"base": f"{config.base.source}: a hub id; it is counted once it is a local folder", **facts}
    return {**facts, **_estimate(config, choice, device, dtype)}


def _estimate(config: RunConfig, choice: MethodChoice, device: str, dtype: str) -> dict[str, Any]:
    from pipeline_lib.registry import open_base
    from pipeline_lib.steps.cost import Estimate

    base = open_base(config, device, dtype)
    spec, rules, prior = base.spec, base.spec.frame_rules, choice.method.prior(choice.settings)
    estimate = Estimate(config, choice, base, device, dtype)
    cost = estimate.cost()
    return {
        "base": f"{config.base.source} ({spec.name}, licence {spec.licence or 'not stated'})",
        "clip": f"{rules.num_frames} frames of {rules.width}x{rules.height} at {rules.frames_per_second:g} fps",
        "training steps": cost.training_steps,
        "prior clips": prior.clips if prior else 0,
        **{f"weights, {part} GB": _gigabytes(size) for part, size in cost.weights.items()},
        "adapter with moments GB": _gigabytes(cost.adapter),
        "latents at most GB": _gigabytes(cost.latents),
        "text at most GB": _gigabytes(cost.text),
        **_memory(estimate, cost, device),
        **{f"forwards, {step}": count for step, count in cost.forwards.items()},
        **_time(cost, config, device, dtype),
    }


def _memory(estimate: Estimate, cost: Cost, device: str) -> dict[str, Any]:
    """What each phase needs, beside the interpreter and its libraries, and what could be changed."""
    facts: dict[str, Any] = {}
    for phase in cost.phases:
        for place, parts in (("device", phase.device), ("host", phase.host)):
            held = ", ".join(f"{part} {_gigabytes(size)}" for part, size in parts.items() if size)
            facts[f"{phase.name}, {place} GB"] = f"{_gigabytes(sum(parts.values()))} ({held or 'nothing'})"
    room = _room(device, cost.need)
    fits = cost.need.fits(room)
    changes = estimate.advice(room)
    facts |= {
        "needed GB": _gigabytes(cost.need.device),
        "needed on the host GB": _gigabytes(cost.need.host),
        "free there GB": _gigabytes(room.device),
        "verdict": "fits" if fits else "does not fit",
    }
    for number, change in enumerate(changes, 1):
        settings = ", ".join(f"training.{key}={_spelt(value)}" for key, value in change.settings.items())
        outcome = "" if fits else ", fits" if change.fits else ", does not fit"
        word = "could go for speed" if fits else "switch on"
        facts[f"{word}, {number}"] = f"{settings}: {_gigabytes(change.need.device)} GB{outcome}"
    facts["bytes"] = {
        "phases": [phase.model_dump() for phase in cost.phases],
        "need": cost.need.model_dump(),
        "free": room.model_dump(),
        "advice": [change.model_dump() for change in changes],
    }
    return facts


def _time(cost: Cost, config: RunConfig, device: str, dtype: str) -> dict[str, Any]:
    import torch

    from pipeline_lib.steps.cost import seconds
    from pipeline_lib.steps.speed import rate_of

    work = {step: {"flops": one.flops, "bytes moved": one.moved} for step, one in cost.work.items()}
    facts: dict[str, Any] = {"work": work}
    rate = rate_of(device, getattr(torch, dtype))
    if rate is None:
        return {**facts, "speed": "not known of this GPU: no times"}
    taken = seconds(cost, rate, config.training.processes)
    facts["speed"] = rate.origin
    for name in (name for name in cost.work if name != "pass"):
        one = rate.seconds(cost.work[name]) / config.training.processes
        facts[f"{name}, s a step, about"] = float(f"{one:.3g}")
    facts |= {f"{name}, minutes, about": float(f"{spent / 60:.3g}") for name, spent in taken.items()}
    return facts


def _room(device: str, need: Need) -> Need:
    """Bytes that a run could take now; on the CPU device and host are one, and the host's share is put aside.

    The run is a process like this one: its interpreter and libraries are put aside too.
    """
    import psutil
    import torch

    host = psutil.virtual_memory().available - psutil.Process().memory_info().rss
    if device == "cpu":
        return type(need)(device=host - need.host, host=host)
    return type(need)(device=torch.cuda.mem_get_info(device)[0], host=host)


def _spelt(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _gigabytes(size: int) -> float:
    return float(f"{size / 1e9:.3g}")
