"""The families that :func:`pipeline_lib.models.load.load_base` knows, by pipeline class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pipeline_lib.models.base import BaseModel
from pipeline_lib.models.folder import PipelineFolder

Loader = Callable[[PipelineFolder, str, torch.device, torch.dtype], BaseModel]


@dataclass(frozen=True)
class Family:
    """One family of video models.

    Attributes:
        name: registry name.
        pipeline_classes: the diffusers pipeline classes whose folders it reads.
        examples: hub ids, for messages.
        load: makes the base of a folder: (folder, source, device, dtype).
    """

    name: str
    pipeline_classes: tuple[str, ...]
    examples: tuple[str, ...]
    load: Loader


def _load_wan(folder: PipelineFolder, source: str, device: torch.device, dtype: torch.dtype) -> BaseModel:
    # Imported late: the family's module imports diffusers, which takes seconds.
    from pipeline_lib.models.wan import WanBase

    return WanBase(folder, source, device, dtype)


FAMILIES: dict[str, Family] = {
    "wan": Family(
        name="wan",
        pipeline_classes=("WanPipeline",),
        examples=("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "Wan-AI/Wan2.1-T2V-14B-Diffusers"),
        load=_load_wan,
    ),
}
