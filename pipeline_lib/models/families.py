"""The families that :func:`pipeline_lib.models.load.load_base` knows, by pipeline class; names cost no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline_lib.errors import InputError
from pipeline_lib.models.folder import PipelineFolder

if TYPE_CHECKING:
    import torch

    from pipeline_lib.models.base import BaseModel
    from pipeline_lib.models.lora_names import LoraNames

    Loader = Callable[[PipelineFolder, str, torch.device, torch.dtype], BaseModel]


Reader = Literal["diffusers", "comfyui"]
"""Who is to read a LoRA file."""


@dataclass(frozen=True)
class Family:
    """One family of video models.

    Attributes:
        name: registry name.
        pipeline_classes: the diffusers pipeline classes whose folders it reads.
        examples: hub ids, for messages.
        sizes: the published checkpoints' rules and defaults, for people.
        licence: of the published weights, for people.
        load: makes the base of a folder: (folder, source, device, dtype).
        lora_names: gives the names of its LoRA files, which diffusers reads.
        comfy_names: gives those of files for ComfyUI, where no file serves both readers.
    """

    name: str
    pipeline_classes: tuple[str, ...]
    examples: tuple[str, ...]
    sizes: str
    licence: str
    load: Loader
    lora_names: Callable[[], LoraNames]
    comfy_names: Callable[[], LoraNames] | None = None

    def names_for(self, reader: Reader) -> LoraNames:
        """What a LoRA file for one reader calls its layers."""
        return self.comfy_names() if reader == "comfyui" and self.comfy_names else self.lora_names()


def _load_wan(folder: PipelineFolder, source: str, device: torch.device, dtype: torch.dtype) -> BaseModel:
    # Imported late: the family's module imports diffusers, which takes seconds.
    from pipeline_lib.models.wan import WanBase
    from pipeline_lib.models.wan_experts import WanExperts

    kind = WanExperts if "transformer_2" in folder.parts else WanBase
    return kind(folder, source, device, dtype)


def _wan_names() -> LoraNames:
    from pipeline_lib.models.wan_lora import WAN_NAMES

    return WAN_NAMES


def _load_ltx(folder: PipelineFolder, source: str, device: torch.device, dtype: torch.dtype) -> BaseModel:
    from pipeline_lib.models.ltx import LTXBase

    return LTXBase(folder, source, device, dtype)


def _ltx_names() -> LoraNames:
    from pipeline_lib.models.ltx_lora import LTX_NAMES

    return LTX_NAMES


def _load_cogvideox(folder: PipelineFolder, source: str, device: torch.device, dtype: torch.dtype) -> BaseModel:
    from pipeline_lib.models.cogvideox import CogVideoXBase

    return CogVideoXBase(folder, source, device, dtype)


def _cogvideox_names() -> LoraNames:
    from pipeline_lib.models.cogvideox_lora import COGVIDEOX_NAMES

    return COGVIDEOX_NAMES


def _cogvideox_comfy_names() -> LoraNames:
    from pipeline_lib.models.cogvideox_lora import COGVIDEOX_COMFY_NAMES

    return COGVIDEOX_COMFY_NAMES


def _load_hunyuan(folder: PipelineFolder, source: str, device: torch.device, dtype: torch.dtype) -> BaseModel:
    from pipeline_lib.models.hunyuan import HunyuanBase

    return HunyuanBase(folder, source, device, dtype)


def _hunyuan_names() -> LoraNames:
    from pipeline_lib.models.hunyuan_lora import HUNYUAN_NAMES

    return HUNYUAN_NAMES


FAMILIES: dict[str, Family] = {
    "wan": Family(
        name="wan",
        pipeline_classes=("WanPipeline",),
        examples=(
            "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
            "Wan-AI/Wan2.1-T2V-14B-Diffusers",
            "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
            "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
        ),
        sizes=(
            "sides multiples of 16 (5B: 32), 1 + 4k frames; "
            "832×480, 81 frames, 16 fps (5B: 1280×704, 121 frames, 24 fps)"
        ),
        licence="Apache-2.0",
        load=_load_wan,
        lora_names=_wan_names,
    ),
    "ltx": Family(
        name="ltx",
        pipeline_classes=("LTXPipeline",),
        examples=("Lightricks/LTX-Video",),
        sizes="sides multiples of 32, 1 + 8k frames; 704×512, 161 frames, 25 fps",
        licence="Lightricks' own, not the same for all versions: see the model's card",
        load=_load_ltx,
        lora_names=_ltx_names,
    ),
    "cogvideox": Family(
        name="cogvideox",
        pipeline_classes=("CogVideoXPipeline",),
        examples=("THUDM/CogVideoX-2b", "THUDM/CogVideoX-5b"),
        sizes="sides multiples of 16, 1 + 8k frames; 720×480, 49 frames, 8 fps",
        licence="2b: Apache-2.0; 5b: CogVideoX licence",
        load=_load_cogvideox,
        lora_names=_cogvideox_names,
        comfy_names=_cogvideox_comfy_names,
    ),
    "hunyuan": Family(
        name="hunyuan",
        pipeline_classes=("HunyuanVideoPipeline",),
        examples=("hunyuanvideo-community/HunyuanVideo",),
        sizes="sides multiples of 16, 1 + 4k frames; 1280×720, 129 frames, 24 fps",
        licence="Tencent Hunyuan Community License",
        load=_load_hunyuan,
        lora_names=_hunyuan_names,
    ),
}


def family_named(name: str) -> Family:
    """The family of that registry name; InputError where there is none."""
    if name not in FAMILIES:
        raise InputError("there is no such family of bases", got=name, expected=", ".join(FAMILIES))
    return FAMILIES[name]


def family_of(folder: PipelineFolder) -> Family:
    """The family of a diffusers folder, by its pipeline's class; InputError where there is none."""
    for family in FAMILIES.values():
        if folder.pipeline_class in family.pipeline_classes:
            return family
    known = "; ".join(f"{family.name} ({', '.join(family.pipeline_classes)})" for family in FAMILIES.values())
    raise InputError(f"{folder.path} is of no known family", got=folder.pipeline_class or "no class", expected=known)
