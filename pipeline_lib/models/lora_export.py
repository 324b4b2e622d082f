"""LoRA files that load in the stock loaders: one plain LoRA, names that they know, no scaling left to do.

Alpha equals the rank and no `.alpha` tensor is written, so that no reader scales a second time. What the keys are is
each family's own (:class:`pipeline_lib.models.lora_names.LoraNames`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pipeline_lib.errors import InputError
from pipeline_lib.models.families import Reader, family_named
from pipeline_lib.models.lora_file import check_lora_path
from pipeline_lib.models.triple import SECOND_EXPERT, LoraTriple
from pipeline_lib.storage.tensors import read_tensors, save_tensors

PROVENANCE_PREFIX = "mannerism."
_EXPERTS = {"": "high_noise", SECOND_EXPERT: "low_noise"}  # the names that stock tools give the two files


@dataclass(frozen=True)
class LoraFile:
    """A LoRA as read: diffusers module path to (down (r, in), up (out, r)), and its provenance."""

    layers: Mapping[str, tuple[Tensor, Tensor]]
    provenance: Mapping[str, str]


def lora_tensors(
    triple: LoraTriple, *, family: str, identity: float = 1.0, motion: float = 1.0, reader: Reader = "diffusers"
) -> dict[str, Tensor]:
    """The tensors of an export, by key, float32.

    Args:
        triple: the trained factors.
        family: of the base, e.g. "wan".
        identity: strength of the coefficients.
        motion: strength of the motion residual.
        reader: whom the names are for; most families' files serve both.

    Returns:
        Key to tensor, ready for `load_lora_weights` or a file.

    Raises:
        InputError: a family or a layer that the format has no name for.
    """
    layers = {path: (down.float(), up.float()) for path, (down, up) in triple.merged(identity, motion).items()}
    if not layers:
        raise InputError("there is no trained layer to export")
    tensors = family_named(family).names_for(reader).write(layers)
    return {key: tensor.contiguous() for key, tensor in tensors.items()}


def write_lora(
    triple: LoraTriple,
    path: Path,
    *,
    family: str,
    identity: float = 1.0,
    motion: float = 1.0,
    provenance: Mapping[str, object],
) -> Path:
    """Writes one plain LoRA file, or two for a base with two experts: see :func:`lora_files`.

    Args:
        triple: the trained factors.
        path: ends in `.safetensors`.
        family: of the base, e.g. "wan".
        identity: strength of the coefficients, baked in.
        motion: strength of the motion residual, baked in.
        provenance: method, stage, base, digests, trigger, …; written as header keys `mannerism.<name>`.

    Returns:
        The path; of two, the high-noise expert's.
    """
    facts = {"family": family, "identity_strength": identity, "motion_strength": motion}
    return _write(triple, path, "diffusers", {**provenance, **facts})


def write_comfy_lora(
    triple: LoraTriple,
    path: Path,
    *,
    family: str,
    identity: float = 1.0,
    motion: float = 1.0,
    provenance: Mapping[str, object],
) -> Path:
    """As :func:`write_lora`, for ComfyUI: the same file for families whose names both readers know."""
    facts = {"family": family, "identity_strength": identity, "motion_strength": motion}
    return _write(triple, path, "comfyui", {**provenance, **facts})


def _write(triple: LoraTriple, path: Path, reader: Reader, facts: Mapping[str, Any]) -> Path:
    parts, files = triple.by_expert() or {"": triple}, lora_files(triple, path)
    for prefix, file in files.items():
        tensors = lora_tensors(
            parts[prefix],
            family=facts["family"],
            identity=facts["identity_strength"],
            motion=facts["motion_strength"],
            reader=reader,
        )
        expert = {"expert": _EXPERTS[prefix]} if len(files) > 1 else {}
        told = {**facts, "rank": triple.rank, **expert}
        save_tensors(
            file,
            tensors,
            {"format": "pt", **{f"{PROVENANCE_PREFIX}{name}": str(value) for name, value in told.items()}},
        )
    return files[""]


def write_peft(triple: LoraTriple, folder: Path, *, identity: float = 1.0, motion: float = 1.0) -> list[Path]:
    """Writes PEFT's own format, which `PeftModel.from_pretrained(denoiser, folder)` reads.

    Args:
        triple: the trained factors.
        folder: made when missing; for a base with two experts its name gets their endings, see :func:`lora_files`.
        identity: strength of the coefficients, baked in.
        motion: strength of the motion residual, baked in.

    Returns:
        The folders: one, or the high-noise expert's and the other's.
    """
    from peft import LoraConfig  # late: it imports torch and transformers

    parts, folders = triple.by_expert() or {"": triple}, lora_files(triple, folder)
    for prefix, place in folders.items():
        tensors: dict[str, Tensor] = {}
        layers = parts[prefix].merged(identity, motion)
        for path, (down, up) in layers.items():
            name = f"base_model.model.{path}"
            tensors |= {f"{name}.lora_A.weight": down.float(), f"{name}.lora_B.weight": up.float()}
        place.mkdir(parents=True, exist_ok=True)
        settings = LoraConfig(
            r=triple.rank, lora_alpha=triple.rank, target_modules=sorted(layers), lora_dropout=0.0, inference_mode=True
        )
        settings.save_pretrained(str(place))
        save_tensors(place / "adapter_model.safetensors", tensors, {"format": "pt"})
    return list(folders.values())


def lora_files(triple: LoraTriple, path: Path) -> dict[str, Path]:
    """The files that :func:`write_lora` writes.

    Args:
        triple: the trained factors.
        path: asked for.

    Returns:
        "" to the path; of two experts, "" to `<stem>_high_noise<suffix>`, which the stock `load_lora_weights` puts on
        as it is, and `SECOND_EXPERT` to `<stem>_low_noise<suffix>`, which needs `load_into_transformer_2=True`.
    """
    if SECOND_EXPERT not in triple.by_expert():
        return {"": path}
    # Only a file's name has an ending that stays last: a folder may be called "dog v1.0".
    ending = path.suffix if path.suffix == ".safetensors" else ""
    stem = path.name.removesuffix(ending)
    return {prefix: path.with_name(f"{stem}_{name}{ending}") for prefix, name in _EXPERTS.items()}


def read_lora(path: Path, family: str, denoiser: nn.Module | None = None) -> LoraFile:
    """Reads a LoRA that :func:`write_lora` wrote, and nothing else.

    Args:
        path: a `.safetensors` file.
        family: that it was written for, e.g. "wan".
        denoiser: when given, every layer must be one of its linear layers, in its shape.

    Returns:
        The checked layers, float32 on the CPU.

    Raises:
        InputError: a pickle, an unreadable or huge file, unknown keys, wrong shapes, values not finite.
    """
    tensors, header = open_lora_file(path)
    layers = family_named(family).names_for("diffusers").read(tensors, str(path))
    if not layers:
        raise InputError(f"{path} holds no LoRA layers")
    if denoiser is not None:
        check_fit(layers, denoiser, str(path))
    return LoraFile(layers, provenance_of(header))


def provenance_of(header: Mapping[str, str]) -> dict[str, str]:
    """What :func:`write_lora` wrote into a header of where the file came from; empty in files of others."""
    return {
        name.removeprefix(PROVENANCE_PREFIX): text
        for name, text in header.items()
        if name.startswith(PROVENANCE_PREFIX)
    }


def check_fit(layers: Mapping[str, tuple[Tensor, Tensor]], denoiser: nn.Module, what: str) -> None:
    """Refuses LoRA layers that are not linear layers of a denoiser, in their shapes.

    Args:
        layers: module path to (down (r, in), up (out, r)).
        denoiser: may carry adapters already.
        what: names the LoRA in the error.

    Raises:
        InputError: names the first layer that does not fit.
    """
    shapes = {
        # PEFT wraps a layer it has adapted; a weight in 4 bits has another shape than its layer.
        name.removesuffix(".base_layer"): (module.out_features, module.in_features)
        for name, module in denoiser.named_modules()
        if isinstance(module, nn.Linear)
    }
    for module, (down, up) in layers.items():
        fits = (up.shape[0], down.shape[1])
        if shapes.get(module) != fits:
            expected = str(shapes[module]) if module in shapes else "no such layer"
            raise InputError(f"{what} does not fit this base at {module}", got=str(fits), expected=expected)


def open_lora_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a safetensors file that someone says is a LoRA.

    Args:
        path: of the file.

    Returns:
        Its tensors and the strings of its header.

    Raises:
        InputError: a pickle, no such file, too large, or none of this format.
    """
    check_lora_path(path)
    return read_tensors(path)
