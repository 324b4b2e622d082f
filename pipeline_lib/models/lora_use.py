"""LoRA files of others on a base: merged into its frozen weights, or given to the adapter as its start.

Merging is what holds with everything that is done to a base afterwards: eight-bit storage, swapped blocks, compiled
blocks, an adapter that is switched off for the prior. It is done in float32 on the host, once, before any of these.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline_lib.errors import InputError
from pipeline_lib.models.base import BaseModel
from pipeline_lib.models.folder import PipelineFolder
from pipeline_lib.models.lora_export import LoraFile
from pipeline_lib.models.lora_file import UsedLora, lora_digest
from pipeline_lib.models.lora_import import import_lora
from pipeline_lib.models.lora_names import Layers
from pipeline_lib.models.triple import SECOND_EXPERT


def bare_denoisers(folder: PipelineFolder) -> dict[str, nn.Module]:
    """The denoisers of a base without their weights, to read files against.

    Args:
        folder: of the base; only configs are read.

    Returns:
        "" and, where there are two experts, :data:`pipeline_lib.models.triple.SECOND_EXPERT`, to a module.
    """
    bare: dict[str, nn.Module] = {}
    for prefix, part in (("", "transformer"), (SECOND_EXPERT, "transformer_2")):
        if part in folder.parts:
            with torch.device("meta"):
                bare[prefix] = folder.unread(part, torch.float32)
    return bare


def layers_on(
    loras: Sequence[UsedLora], family: str, prefix: str, denoiser: nn.Module
) -> dict[str, tuple[Tensor, Tensor]]:
    """What LoRA files add to one denoiser, all together.

    Args:
        loras: files; those for the other expert are left out.
        family: of the base.
        prefix: of the denoiser's layers, see :func:`bare_denoisers`.
        denoiser: with or without weights.

    Returns:
        Module path to (down (r, in), up (out, r)), float32; strengths are baked into `up`, ranks of several files add
        up.

    Raises:
        InputError: a file does not fit, or is not what it was when the run began.
    """
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for lora in loras:
        if not lora.serves(prefix):
            continue
        for path, (down, up) in _read(lora, family, denoiser).layers.items():
            found.setdefault(path, []).append((down, up * lora.fact.strength))
    return {
        path: (torch.cat([down for down, _ in pairs]), torch.cat([up for _, up in pairs], dim=1))
        for path, pairs in found.items()
    }


@torch.no_grad()
def merge(denoiser: nn.Module, layers: Layers) -> None:
    """Adds LoRA layers to a denoiser's weights, in float32, rounded once to what the weights are kept in.

    Args:
        denoiser: bare, on the host.
        layers: of :func:`layers_on`.
    """
    for path, (down, up) in layers.items():
        weight = denoiser.get_submodule(path).weight
        assert isinstance(weight, Tensor)
        weight.copy_(weight.float() + up @ down)


def start_layers(loras: Sequence[UsedLora], base: BaseModel) -> dict[str, tuple[Tensor, Tensor]]:
    """What an adapter on a base starts from.

    Args:
        loras: files.
        base: its weights are not looked at.

    Returns:
        As :func:`layers_on`, of both experts where there are two, the paths with their prefixes.

    Raises:
        InputError: a file does not fit, or has layers that no adapter on this base has.
    """
    layers: dict[str, tuple[Tensor, Tensor]] = {}
    for prefix, denoiser in _checked(loras, base).items():
        of_one = layers_on(loras, base.spec.name, prefix, denoiser)
        layers |= {prefix + path: pair for path, pair in of_one.items()}
    endings = tuple(f".{target}" for target in base.spec.lora_targets)
    if stray := [path for path in layers if not f".{path}".endswith(endings)]:
        raise InputError(
            f"training cannot start from {', '.join(str(lora.path) for lora in loras)}: no adapter is trained there",
            got=", ".join(stray[:4]),
            expected=f"layers that end in {', '.join(base.spec.lora_targets)}",
            fix="put the LoRA on the base instead: base.loras, or --lora",
        )
    return layers


def check_loras(base: BaseModel, start: Sequence[UsedLora] = ()) -> None:
    """Reads all LoRA files of a run against its base, without the base's weights.

    Args:
        base: with its own `loras`.
        start: those that training starts from.

    Raises:
        InputError: the first thing that does not fit; names file and layer.
    """
    if base.loras:
        for prefix, denoiser in _checked(base.loras, base).items():
            layers_on(base.loras, base.spec.name, prefix, denoiser)
    if start:
        start_layers(start, base)


def _checked(loras: Sequence[UsedLora], base: BaseModel) -> dict[str, nn.Module]:
    """The bare denoisers, once the experts that were named are there."""
    denoisers = bare_denoisers(base.folder)
    named = next((lora for lora in loras if lora.fact.expert != "both"), None)
    if named is not None and len(denoisers) == 1:
        raise InputError(
            f"{named.path} is for the {named.fact.expert}-noise expert, but {base.source} has one denoiser",
            fix=f"leave `{named.fact.expert}=` out",
        )
    for lora in loras if len(denoisers) > 1 else ():
        denoiser = next(module for prefix, module in denoisers.items() if lora.serves(prefix))
        told = _read(lora, base.spec.name, denoiser).provenance.get("expert", "").removesuffix("_noise")
        if told and told != lora.fact.expert:
            raise InputError(
                f"{lora.path} was trained for the {told}-noise expert",
                got=lora.fact.expert,
                fix=f"write {told}={lora.path.name}, or `expert: {told}`",
            )
    return denoisers


def _read(lora: UsedLora, family: str, denoiser: nn.Module) -> LoraFile:
    file = import_lora(lora.path, family, denoiser)
    if lora_digest(lora.path) != lora.fact.digest:
        raise InputError(f"{lora.path} was changed while the run was going", fix="run again")
    return file
