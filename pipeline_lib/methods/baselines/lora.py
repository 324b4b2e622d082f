"""Plain LoRA on the clip (the papers' LoRA-1, LoRA-8 and, with prior preservation, DB-LoRA)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pipeline_lib.methods.adapter_stage import AdapterMethod, AdapterStagePlan
from pipeline_lib.methods.baselines.settings import SETTINGS, LoraSettings
from pipeline_lib.methods.method import PriorRequest
from pipeline_lib.models.base import BaseModel
from pipeline_lib.records import Record, StageSpec
from pipeline_lib.training.encode import EncodingSettings
from pipeline_lib.training.text import TokenDropSettings

STAGE_VERSION = 1


class PlainLora(AdapterMethod):
    """Implements :class:`pipeline_lib.methods.method.Method`: one stage, a triple without residual."""

    name: ClassVar[str] = SETTINGS.name
    settings_type: ClassVar[type[Record]] = SETTINGS.settings_type
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = SETTINGS.presets

    def plan(self, settings: LoraSettings, has_clips: bool) -> list[StageSpec]:
        """One stage, on clips, or on images where there are only images."""
        plan = AdapterStagePlan(
            rank=settings.rank,
            batch=settings.batch,
            optimizer=settings.optimizer,
            prior_weight=settings.prior_weight,
            full_mask_share=settings.full_mask_share,
        )
        return [
            StageSpec(
                name="lora",
                method=self.name,
                version=STAGE_VERSION,
                data="clips" if has_clips else "frames",
                steps=settings.steps,
                settings=plan.model_dump(mode="json"),
            )
        ]

    def subject(self, settings: LoraSettings, base: BaseModel, class_noun: str) -> str:  # noqa: ARG002 - one protocol
        """`WORD noun`."""
        return f"{settings.trigger_word} {class_noun}"

    def encoding(self, settings: LoraSettings, base: BaseModel, class_noun: str) -> EncodingSettings:
        """Eight frames, whole prompts."""
        return EncodingSettings(
            num_frames=8,
            drop=TokenDropSettings(probability=0.0, variants=1),
            subject=self.subject(settings, base, class_noun),
        )

    def prior(self, settings: LoraSettings) -> PriorRequest | None:
        """The base's own clips where prior preservation is on."""
        if settings.prior_weight == 0:
            return None
        return PriorRequest(clips=settings.prior_clips, token_drop=0.0, token_variants=1)
