"""Set-and-Sequence (Abdal et al. 2025): Stage I learns an identity basis, Stage II motion residuals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pipeline_lib.methods.adapter_stage import AdapterMethod, AdapterStagePlan
from pipeline_lib.methods.method import PriorRequest
from pipeline_lib.methods.set_and_sequence.settings import SETTINGS, SetAndSequenceSettings
from pipeline_lib.models.base import BaseModel
from pipeline_lib.records import Record, StageSpec
from pipeline_lib.training.data import LEARNED_WORDS, MOTION_TOKEN, SUBJECT_TOKEN, sentinels
from pipeline_lib.training.encode import EncodingSettings
from pipeline_lib.training.text import TokenDropSettings

STAGE_VERSION = 1
IDENTITY = "identity"
MOTION = "motion"


class SetAndSequence(AdapterMethod):
    """Implements :class:`pipeline_lib.methods.method.Method`: Stage I from nothing, Stage II on its factors."""

    name: ClassVar[str] = SETTINGS.name
    settings_type: ClassVar[type[Record]] = SETTINGS.settings_type
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = SETTINGS.presets

    def plan(self, settings: SetAndSequenceSettings, has_clips: bool) -> list[StageSpec]:
        """Stage I on frames as an unordered set; Stage II on clips in order, where there are any."""
        return [_spec(settings, stage) for stage in ((IDENTITY, MOTION) if has_clips else (IDENTITY,))]

    def subject(self, settings: SetAndSequenceSettings, base: BaseModel, class_noun: str) -> str:
        """`WORD noun`, or `<sentinel> noun` where the word is learned."""
        word = _learned(settings, base).get(SUBJECT_TOKEN, settings.trigger_word)
        return f"{word} {class_noun}"

    def encoding(self, settings: SetAndSequenceSettings, base: BaseModel, class_noun: str) -> EncodingSettings:
        """The frame set, and prompts with their masked variants."""
        learned = _learned(settings, base)
        return EncodingSettings(
            num_frames=settings.frames,
            drop=TokenDropSettings(
                probability=0.0 if _encodes_live(settings) else _reencoding(settings), variants=settings.token_variants
            ),
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


def _reencoding(settings: SetAndSequenceSettings) -> float:
    return settings.token_drop if settings.token_drop_mode == "reencode" else 0.0


def _encodes_live(settings: SetAndSequenceSettings) -> bool:
    return settings.special_tokens == "encoder_input"


def _learned(settings: SetAndSequenceSettings, base: BaseModel) -> dict[str, str]:
    return {} if settings.special_tokens == "word" else sentinels(base, LEARNED_WORDS)


def _spec(settings: SetAndSequenceSettings, stage: str) -> StageSpec:
    motion = stage == MOTION
    return StageSpec(
        name=stage,
        method=SetAndSequence.name,
        version=STAGE_VERSION,
        data="clips" if motion else "frames",
        steps=settings.motion_steps if motion else settings.identity_steps,
        settings=_stage_plan(settings, stage).model_dump(mode="json"),
        after=IDENTITY if motion else None,
    )


def _stage_plan(settings: SetAndSequenceSettings, stage: str) -> AdapterStagePlan:
    motion = stage == MOTION
    words: tuple[str, ...] = (SUBJECT_TOKEN, MOTION_TOKEN) if motion else (SUBJECT_TOKEN,)
    if settings.special_tokens == "word":
        words = ()
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
        full_mask_share=settings.full_mask_share,
        words_at="encoder_input" if _encodes_live(settings) else "encoder_output",
        live_drop=settings.token_drop if _encodes_live(settings) else 0.0,
        self_conditioning=settings.self_conditioning,
        estimate_probability=settings.self_conditioning_probability,
    )
