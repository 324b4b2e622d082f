"""`loras`: what LoRA files are, and whether they fit a base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.output import put, put_json
from pipeline_lib.errors import InputError
from pipeline_lib.models.lora_file import check_lora_path
from pipeline_lib.run_config import parse_config

if TYPE_CHECKING:
    from pipeline_lib.models.folder import PipelineFolder
    from pipeline_lib.models.lora_look import LoraLook


def tell_loras(files: Sequence[Path], base: str, *, as_json: bool) -> None:
    """Prints what each file is.

    Args:
        files: `.safetensors` files.
        base: 'pocket' or a diffusers folder that they are held against; empty: none.
        as_json: print an object.

    Raises:
        InputError: the first file that cannot be read as a LoRA, or no such base.
    """
    paths = [path.expanduser() for path in files]
    for path in paths:
        check_lora_path(path)  # before the import, which takes seconds
    from pipeline_lib.models.lora_look import look_at_lora, why_unfit

    folder = _folder(base) if base else None
    looks = [look_at_lora(path) for path in paths]
    unfit = [why_unfit(path, folder) if folder else "" for path in paths]
    if as_json:
        verdicts = [{"fits": not why, "why_not": why} if base else {} for why in unfit]
        told = [{**look.model_dump(), **verdict} for look, verdict in zip(looks, verdicts, strict=True)]
        put_json({"loras": told, **({"base": base} if base else {})})
        return
    for look, why in zip(looks, unfit, strict=True):
        _put(look)
        if base:
            put(f"  fits {base:11} {f'no: {why}' if why else 'yes'}")


def _folder(base: str) -> PipelineFolder:
    from pipeline_lib.models.folder import PipelineFolder
    from pipeline_lib.registry import base_source

    source = Path(base_source(parse_config({"base": {"source": base}}, "--base"))).expanduser()
    if not source.is_dir():
        raise InputError(f"{base} is a hub id", fix="fetch it, then give its folder: nothing is fetched for a look")
    return PipelineFolder(source)


def _put(look: LoraLook) -> None:
    put(look.file)
    facts = {
        "family": look.family or "not known by its layers' names",
        "names of": ", ".join(look.names),
        "layers": f"{look.layers}, in {look.keys} keys",
        "rank": _listed(look.ranks),
        "alpha": _listed(look.alphas) if look.alphas else "not stated: the rank",
        "scale": _listed(look.scales),
        "stored as": f"{', '.join(look.dtypes)}, {look.size / 1e6:.1f} MB",
        "targets": ", ".join(f"{name} ×{count}" for name, count in look.targets.items()),
    }
    for name, value in facts.items():
        put(f"  {name:16} {value}")
    for key, text in look.metadata.items():
        put(f"  header           {key}: {text}")


def _listed(numbers: Sequence[float]) -> str:
    """All of a few numbers, or the range of many."""
    if len(numbers) <= 6:
        return ", ".join(f"{number:g}" for number in numbers)
    return f"{numbers[0]:g} to {numbers[-1]:g}, {len(numbers)} different ones"
