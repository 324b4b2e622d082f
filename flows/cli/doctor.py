"""`doctor`: what is installed, what the machine has, what a config will use; counted, not guessed."""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from flows.cli.output import put, put_json
from pipeline_lib.errors import PipelineError
from pipeline_lib.run_config import RunConfig, load_config
from pipeline_lib.steps.state import StateFolder

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
    from pipeline_lib.registry import base_source, choose_method, encoder_folder, open_base
    from pipeline_lib.steps.check import check_config
    from pipeline_lib.steps.cost import run_cost
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
    base = open_base(config, device, dtype)
    cost = run_cost(config, choice, base, dtype)
    spec, rules, prior = base.spec, base.spec.frame_rules, choice.method.prior(choice.settings)
    weights = sum(cost.weights.values())
    free = _free(device)
    return {
        "base": f"{config.base.source} ({spec.name}, licence {spec.licence or 'not stated'})",
        **facts,
        "clip": f"{rules.num_frames} frames of {rules.width}x{rules.height} at {rules.frames_per_second:g} fps",
        "training steps": cost.training_steps,
        "prior clips": prior.clips if prior else 0,
        **{f"weights, {part} GB": _gigabytes(size) for part, size in cost.weights.items()},
        "adapter with moments GB": _gigabytes(cost.adapter),
        "latents at most GB": _gigabytes(cost.latents),
        "needed GB": _gigabytes(weights + cost.adapter),
        "free there GB": _gigabytes(free),
        "verdict": "fits, activations aside" if weights + cost.adapter < free else "does not fit",
        **{f"forwards, {step}": count for step, count in cost.forwards.items()},
    }


def _free(device: str) -> int:
    """Bytes that a run could take on its device now."""
    import psutil
    import torch

    return int(torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else psutil.virtual_memory().available)


def _gigabytes(size: int) -> float:
    return float(f"{size / 1e9:.3g}")
