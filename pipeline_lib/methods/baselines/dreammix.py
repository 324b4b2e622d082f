"""DreamMix (Molad et al. 2023) on a diffusion transformer: one LoRA, steps on frames and steps on clips in turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pipeline_lib.methods.adapter_stage import AdapterStagePlan
from pipeline_lib.methods.baselines.one_stage import OneStageMethod
from pipeline_lib.methods.baselines.settings import DREAMMIX, DreamMixSettings
from pipeline_lib.models.base import BaseModel
from pipeline_lib.records import Record


class DreamMix(OneStageMethod[DreamMixSettings]):
    """Implements :class:`pipeline_lib.methods.method.Method`: a plain LoRA whose every step draws what it sees.

    Frames come with the static prompt, clips with the full one.
    """

    name: ClassVar[str] = DREAMMIX.name
    settings_type: ClassVar[type[Record]] = DREAMMIX.settings_type
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = DREAMMIX.presets

    def adapter_plan(self, settings: DreamMixSettings, has_clips: bool) -> AdapterStagePlan:
        """A fresh adapter; images alone leave no turns to take."""
        return AdapterStagePlan(
            rank=settings.rank,
            cross_attention=settings.cross_attention,
            batch=settings.batch,
            optimizer=settings.optimizer,
            full_mask_share=settings.full_mask_share,
            frame_share=settings.frame_share if has_clips else 0.0,
        )

    def subject(self, settings: DreamMixSettings, base: BaseModel, class_noun: str) -> str:  # noqa: ARG002 - one protocol
        """`WORD noun`."""
        return f"{settings.trigger_word} {class_noun}"
