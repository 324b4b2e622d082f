"""Plain LoRA on the clip (the papers' LoRA-1, LoRA-8 and, with prior preservation, DB-LoRA)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pipeline_lib.methods.adapter_stage import AdapterStagePlan
from pipeline_lib.methods.baselines.one_stage import OneStageMethod
from pipeline_lib.methods.baselines.settings import LORA, LoraSettings
from pipeline_lib.methods.method import PriorRequest
from pipeline_lib.models.base import BaseModel
from pipeline_lib.records import Record


class PlainLora(OneStageMethod[LoraSettings]):
    """Implements :class:`pipeline_lib.methods.method.Method`: both factors learn, on clips alone.

    At equal steps it costs more than two stages do, whose first one sees single frames.
    """

    name: ClassVar[str] = LORA.name
    settings_type: ClassVar[type[Record]] = LORA.settings_type
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = LORA.presets

    def adapter_plan(self, settings: LoraSettings, has_clips: bool) -> AdapterStagePlan:  # noqa: ARG002 - one protocol
        """A fresh adapter, nothing but the prior to regularise it."""
        return AdapterStagePlan(
            rank=settings.rank,
            cross_attention=settings.cross_attention,
            batch=settings.batch,
            optimizer=settings.optimizer,
            prior_weight=settings.prior_weight,
            full_mask_share=settings.full_mask_share,
        )

    def subject(self, settings: LoraSettings, base: BaseModel, class_noun: str) -> str:  # noqa: ARG002 - one protocol
        """`WORD noun`."""
        return f"{settings.trigger_word} {class_noun}"

    def prior(self, settings: LoraSettings) -> PriorRequest | None:
        """The base's own clips where prior preservation is on."""
        if settings.prior_weight == 0:
            return None
        return PriorRequest(clips=settings.prior_clips, token_drop=0.0, token_variants=1)
