"""What the baselines of a single stage have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from pipeline_lib.methods.adapter_stage import AdapterMethod, AdapterStagePlan
from pipeline_lib.methods.baselines.settings import OneStageSettings
from pipeline_lib.methods.method import PriorRequest
from pipeline_lib.models.base import BaseModel
from pipeline_lib.records import StageSpec
from pipeline_lib.training.encode import EncodingSettings
from pipeline_lib.training.text import TokenDropSettings

STAGE_VERSION = 1

Settings = TypeVar("Settings", bound=OneStageSettings)


class OneStageMethod(AdapterMethod, ABC, Generic[Settings]):
    """Most of :class:`pipeline_lib.methods.method.Method`: one stage, a triple without residual, whole prompts."""

    name: ClassVar[str]

    @abstractmethod
    def adapter_plan(self, settings: Settings, has_clips: bool) -> AdapterStagePlan:
        """What the stage's spec holds."""

    @abstractmethod
    def subject(self, settings: Settings, base: BaseModel, class_noun: str) -> str:
        """The words that stand for the subject in prompts, class noun included."""

    def plan(self, settings: Settings, has_clips: bool) -> list[StageSpec]:
        """One stage, on clips, or on images where there are only images."""
        return [
            StageSpec(
                name=self.name,
                method=self.name,
                version=STAGE_VERSION,
                data="clips" if has_clips else "frames",
                steps=settings.steps,
                settings=self.adapter_plan(settings, has_clips).model_dump(mode="json"),
            )
        ]

    def learned(self, base: BaseModel) -> dict[str, str]:  # noqa: ARG002 - what a child may need
        """Learned words and the sentinels that stand for them: none."""
        return {}

    def encoding(self, settings: Settings, base: BaseModel, class_noun: str) -> EncodingSettings:
        """Eight frames, whole prompts."""
        return EncodingSettings(
            num_frames=8,
            drop=TokenDropSettings(probability=0.0, variants=1),
            subject=self.subject(settings, base, class_noun),
            learned=self.learned(base),
        )

    def prior(self, settings: Settings) -> PriorRequest | None:  # noqa: ARG002 - one protocol
        """None is sampled."""
        return None
