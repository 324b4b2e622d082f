"""The families that :func:`pipeline_lib.models.load.load_base` knows, by pipeline class; names cost no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Literal

from pipeline_lib.errors import InputError
from pipeline_lib.models.folder import PipelineFolder

if TYPE_CHECKING:
    import torch

    from pipeline_lib.models.base import BaseModel
    from pipeline_lib.models.lora_names import LoraNames
    from pipeline_lib.records import FrameRules

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
        opener: where the callable stands that makes the base of a folder: (folder, source, device, dtype).
        rules: where the one stands that gives a folder's frame rules, if it can be used.
        lora_names: where the names of its LoRA files stand, which diffusers reads.
        comfy_names: where those of files for ComfyUI stand; empty where one file serves both readers.
        stock_changes: lines of Python that make a stock pipeline `pipe`, read from `base`, do what ours does.
    """

    name: str
    pipeline_classes: tuple[str, ...]
    examples: tuple[str, ...]
    sizes: str
    licence: str
    opener: str
    rules: str
    lora_names: str
    comfy_names: str = ""
    stock_changes: tuple[str, ...] = ()

    def open(self, folder: PipelineFolder, source: str, device: torch.device, dtype: torch.dtype) -> BaseModel:
        """The base of a folder; the family's module is imported now: it imports diffusers, which takes seconds."""
        base: BaseModel = resolve_name(self.opener)(folder, source, device, dtype)
        return base

    def frame_rules(self, folder: PipelineFolder) -> FrameRules:
        """What the base of a folder takes and makes, from configs and card alone.

        Args:
            folder: of this family.

        Returns:
            Size, length and frame rate that it was trained at, and which others there could be.

        Raises:
            InputError: a part is missing, a variant that is not supported, values that a class does not
                take, or a card that does not fit the networks.
        """
        try:
            found: FrameRules = resolve_name(self.rules)(folder)
        except (TypeError, IndexError, AttributeError) as error:
            raise InputError(
                f"a config of {folder.path} holds a value that its class does not take",
                got=str(error),
                fix="put the published config.json back",
            ) from error
        return found

    def names_for(self, reader: Reader) -> LoraNames:
        """What a LoRA file for one reader calls its layers."""
        names: LoraNames = resolve_name(
            self.comfy_names if reader == "comfyui" and self.comfy_names else self.lora_names
        )
        return names


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
        opener="pipeline_lib.models.wan_experts:open_wan",
        rules="pipeline_lib.models.wan_spec:checked_rules",
        lora_names="pipeline_lib.models.wan_lora:WAN_NAMES",
    ),
    "ltx": Family(
        name="ltx",
        pipeline_classes=("LTXPipeline",),
        examples=("Lightricks/LTX-Video",),
        sizes="sides multiples of 32, 1 + 8k frames; 704×512, 161 frames, 25 fps",
        licence="Lightricks' own, not the same for all versions: see the model's card",
        opener="pipeline_lib.models.ltx:LTXBase",
        rules="pipeline_lib.models.ltx_spec:checked_rules",
        lora_names="pipeline_lib.models.ltx_lora:LTX_NAMES",
    ),
    "cogvideox": Family(
        name="cogvideox",
        pipeline_classes=("CogVideoXPipeline",),
        examples=("THUDM/CogVideoX-2b", "THUDM/CogVideoX-5b"),
        sizes="sides multiples of 16, 1 + 8k frames; 720×480, 49 frames, 8 fps",
        licence="2b: Apache-2.0; 5b: CogVideoX licence",
        opener="pipeline_lib.models.cogvideox:CogVideoXBase",
        rules="pipeline_lib.models.cogvideox_spec:checked_rules",
        lora_names="pipeline_lib.models.cogvideox_lora:COGVIDEOX_NAMES",
        comfy_names="pipeline_lib.models.cogvideox_lora:COGVIDEOX_COMFY_NAMES",
    ),
    "hunyuan": Family(
        name="hunyuan",
        pipeline_classes=("HunyuanVideoPipeline",),
        examples=("hunyuanvideo-community/HunyuanVideo",),
        sizes="sides multiples of 16, 1 + 4k frames; 1280×720, 129 frames, 24 fps",
        licence="Tencent Hunyuan Community License",
        opener="pipeline_lib.models.hunyuan:HunyuanBase",
        rules="pipeline_lib.models.hunyuan_spec:checked_rules",
        lora_names="pipeline_lib.models.hunyuan_lora:HUNYUAN_NAMES",
        # See `llama_tokenizer` in pipeline_lib.models.hunyuan_text.
        stock_changes=(
            "from transformers import PreTrainedTokenizerFast as Fast",
            'pipe.tokenizer = Fast.from_pretrained(base, subfolder="tokenizer")',
            "pipe.vae.enable_tiling()",
        ),
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
