"""What a LoRA file is, whatever base it may be for: whose names it uses, its layers, ranks and scales."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pipeline_lib.errors import InputError
from pipeline_lib.models.families import family_of
from pipeline_lib.models.folder import PipelineFolder
from pipeline_lib.models.lora_export import open_lora_file, provenance_of
from pipeline_lib.models.lora_file import in_peft_names
from pipeline_lib.models.lora_import import (
    KOHYA_PREFIXES,
    FileLayer,
    Scaling,
    grouped_layers,
    import_lora,
    layer_factors,
    looks_like,
    scaling_of,
)
from pipeline_lib.models.lora_use import bare_denoisers
from pipeline_lib.records import Record

_COMFY_PREFIXES = ("diffusion_model.", "model.diffusion_model.")
_DIFFUSERS_PREFIXES = ("transformer.", "unet.")
_IN_A_BLOCK = re.compile(r"^.*?blocks?[._]\d+[._]")
_TOLD_ENTRIES, _TOLD_LETTERS = 40, 200


class LoraLook(Record):
    """What a LoRA file is.

    `names` tells whose names it uses, `family` what these are typical of, empty where they are of none. `ranks`,
    `scales` (what an update is multiplied by) and `alphas` (where the file states one) are those of all layers, each
    once; `targets` counts layers by their name inside a block. `metadata` are the header's entries, cut short.
    """

    file: str
    size: int
    keys: int
    layers: int
    names: tuple[str, ...]
    family: str
    ranks: tuple[int, ...]
    scales: tuple[float, ...]
    alphas: tuple[float, ...]
    dtypes: tuple[str, ...]
    targets: dict[str, int]
    metadata: dict[str, str]


def look_at_lora(path: Path) -> LoraLook:
    """Reads a LoRA file whole, without a base.

    Args:
        path: a `.safetensors` file.

    Returns:
        What it is.

    Raises:
        InputError: a pickle, an unreadable or huge file, another kind of adapter, half a layer, values not finite.
    """
    tensors, header = open_lora_file(path)
    layers, scaling = grouped_layers(tensors, path), scaling_of(tensors, header, path)
    if not layers:
        raise InputError(f"{path} holds no LoRA layers")
    ranks = {stem: len(layer_factors(layer, stem, scaling, str(path))[0]) for stem, layer in layers.items()}
    alphas = {stem: _alpha(layer, stem, scaling) for stem, layer in layers.items()}
    targets = Counter(_IN_A_BLOCK.sub("", stem) for stem in layers)
    return LoraLook(
        file=str(path),
        size=path.stat().st_size,
        keys=len(tensors),
        layers=len(layers),
        names=tuple(sorted({_whose(stem) for stem in layers})),
        family=provenance_of(header).get("family", "") or _typical(layers),
        ranks=tuple(sorted(set(ranks.values()))),
        scales=tuple(sorted({_scale(layers[stem], stem, scaling, rank) for stem, rank in ranks.items()})),
        alphas=tuple(sorted({alpha for alpha in alphas.values() if alpha is not None})),
        dtypes=tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})),
        targets={_printable(name): count for name, count in sorted(targets.items())},
        metadata={_printable(key): _printable(text) for key, text in sorted(header.items())[:_TOLD_ENTRIES]},
    )


def why_unfit(path: Path, folder: PipelineFolder) -> str:
    """What of a LoRA file does not fit a base, empty where all of it does.

    Args:
        path: of a file that :func:`look_at_lora` has read.
        folder: of the base; only its configs are read. Of two experts, which are alike, the first one is looked at.

    Returns:
        The words of the error that a run on this base would end with.

    Raises:
        InputError: the folder is no base of a known family.
    """
    denoiser, family = bare_denoisers(folder)[""], family_of(folder).name
    try:
        import_lora(path, family, denoiser)
    except InputError as error:
        return str(error)
    return ""


def _whose(stem: str) -> str:
    if in_peft_names(stem):
        return "PEFT"
    if stem.startswith(KOHYA_PREFIXES):
        return "kohya"
    if stem.startswith(_COMFY_PREFIXES):
        return "ComfyUI"
    return "diffusers" if stem.startswith(_DIFFUSERS_PREFIXES) else "no prefix"


def _typical(layers: Mapping[str, FileLayer]) -> str:
    ((family, _), *_) = Counter(looks_like(stem) for stem in layers).most_common(1)
    return family


def _alpha(layer: FileLayer, stem: str, scaling: Scaling) -> float | None:
    return scaling.alpha_of(stem) if layer.alpha is None else float(layer.alpha)


def _scale(layer: FileLayer, stem: str, scaling: Scaling, rank: int) -> float:
    return scaling.scale(stem, rank) if layer.alpha is None else float(layer.alpha) / rank


def _printable(text: str) -> str:
    """A stranger's words, fit for a terminal."""
    words = "".join(letter if letter.isprintable() else " " for letter in text)
    return words if len(words) <= _TOLD_LETTERS else f"{words[:_TOLD_LETTERS]}… ({len(words)} letters)"
