"""Set-and-Sequence (Abdal et al. 2025): Stage I learns an identity basis, Stage II motion residuals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pipeline_lib.methods.adapter_stage import AdapterStagePlan, build_adapter_stage, finish_adapter_stage
from pipeline_lib.methods.method import PriorRequest, StageInputs
from pipeline_lib.methods.set_and_sequence.settings import PRESETS, SetAndSequenceSettings
from pipeline_lib.models.base import BaseModel
from pipeline_lib.records import Record, StageSpec
from pipeline_lib.training.data import MOTION_TOKEN, SUBJECT_TOKEN
from pipeline_lib.training.encode import EncodingSettings
from pipeline_lib.training.stage import Stage
from pipeline_lib.training.text import TokenDropSettings

STAGE_VERSION = 1
IDENTITY = "identity"
MOTION = "motion"


class SetAndSequence:
    """Implements :class:`pipeline_lib.methods.method.Method`."""

    name: ClassVar[str] = "set_and_sequence"
    settings_type: ClassVar[type[Record]] = SetAndSequenceSettings
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS

    def plan(self, settings: SetAndSequenceSettings, has_clips: bool) -> list[StageSpec]:
        """Stage I on frames as an unordered set; Stage II on clips in order, where there are any."""
        identity = StageSpec(
            name=IDENTITY,
            method=self.name,
            version=STAGE_VERSION,
            data="frames",
            steps=settings.identity_steps,
            settings=_stage_plan(settings, IDENTITY).model_dump(mode="json"),
        )
        motion = StageSpec(
            name=MOTION,
            method=self.name,
            version=STAGE_VERSION,
            data="clips",
            steps=settings.motion_steps,
            settings=_stage_plan(settings, MOTION).model_dump(mode="json"),
            after=IDENTITY,
        )
        return [identity, motion] if has_clips else [identity]

    def subject(self, settings: SetAndSequenceSettings, base: BaseModel, class_noun: str) -> str:
        """`WORD noun`, or `<sentinel> noun` where the word is learned."""
        word = settings.trigger_word if settings.special_tokens == "word" else base.sentinel(0)
        return f"{word} {class_noun}"

    def encoding(self, settings: SetAndSequenceSettings, base: BaseModel, class_noun: str) -> EncodingSettings:
        """The frame set, and prompts with their masked variants."""
        learned = _learned(settings, base)
        return EncodingSettings(
            num_frames=settings.frames,
            drop=TokenDropSettings(probability=_reencoding(settings), variants=settings.token_variants),
            subject=self.subject(settings, base, class_noun),
            motion=learned.get(MOTION_TOKEN, ""),
            learned=learned,
        )

    def prior(self, settings: SetAndSequenceSettings) -> PriorRequest | None:
        """The base's own clips of the class, unless prior preservation is off."""
        if settings.prior_weight == 0:
            return None
        return PriorRequest(
            clips=settings.prior_clips, token_drop=_reencoding(settings), token_variants=settings.token_variants
        )

    def build(self, spec: StageSpec, base: BaseModel, inputs: StageInputs) -> Stage:
        """Stage I from nothing, or Stage II on Stage I's factors."""
        return build_adapter_stage(spec, base, inputs)

    def finish(self, stage: Stage, folder: Path) -> dict[str, float]:
        """Writes the triple and the learned words."""
        return finish_adapter_stage(stage, folder)

    def release(self, stage: Stage) -> None:
        """Takes the adapter off."""
        stage.adapter.detach()


def _reencoding(settings: SetAndSequenceSettings) -> float:
    return settings.token_drop if settings.token_drop_mode == "reencode" else 0.0


def _learned(settings: SetAndSequenceSettings, base: BaseModel) -> dict[str, str]:
    if settings.special_tokens == "word":
        return {}
    return {SUBJECT_TOKEN: base.sentinel(0), MOTION_TOKEN: base.sentinel(1)}


def _stage_plan(settings: SetAndSequenceSettings, stage: str) -> AdapterStagePlan:
    motion = stage == MOTION
    learned = settings.special_tokens == "encoder_output"
    words = ((SUBJECT_TOKEN, MOTION_TOKEN) if motion else (SUBJECT_TOKEN,)) if learned else ()
    return AdapterStagePlan(
        rank=settings.rank,
        basis=settings.basis,
        zero_factor=settings.zero_factor,
        learn_residual=motion,
        batch=settings.batch,
        optimizer=settings.optimizer,
        dropout=settings.motion_dropout if motion else settings.identity_dropout,
        dropout_rescale=settings.dropout_rescale,
        dropout_on=(("residual",) if settings.mask_on == "B2" else ("coefficients", "residual"))
        if motion
        else ("coefficients",),
        prior_weight=settings.prior_weight,
        pad_probability=settings.token_drop if settings.token_drop_mode == "pad" else 0.0,
        words=words,
        learning_words=words[-1:],
    )
