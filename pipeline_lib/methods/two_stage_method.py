"""Set-and-Sequence's two stages, planned from settings, with whatever regularises them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from pipeline_lib.methods.adapter_stage import AdapterMethod, AdapterStagePlan
from pipeline_lib.methods.method import PriorRequest
from pipeline_lib.methods.two_stage_settings import Regularisation, TwoStageSettings
from pipeline_lib.models.base import BaseModel
from pipeline_lib.records import StageSpec
from pipeline_lib.training.crops import CropSettings
from pipeline_lib.training.data import LEARNED_WORDS, MOTION_TOKEN, SUBJECT_TOKEN, sentinels
from pipeline_lib.training.encode import EncodingSettings
from pipeline_lib.training.text import TokenDropSettings

STAGE_VERSION = 1
IDENTITY = "identity"
MOTION = "motion"

Settings = TypeVar("Settings", bound=TwoStageSettings)


class TwoStageMethod(AdapterMethod, ABC, Generic[Settings]):
    """Most of :class:`pipeline_lib.methods.method.Method`: Stage I from nothing, Stage II on its factors."""

    name: ClassVar[str]

    @abstractmethod
    def regularisation(self, settings: Settings) -> Regularisation:
        """What regularises both stages."""

    def plan(self, settings: Settings, has_clips: bool) -> list[StageSpec]:
        """Stage I on frames as an unordered set; Stage II on clips in order, where there are any."""
        return [self._spec(settings, stage) for stage in ((IDENTITY, MOTION) if has_clips else (IDENTITY,))]

    def subject(self, settings: Settings, base: BaseModel, class_noun: str) -> str:
        """`WORD noun`, or `<sentinel> noun` where the word is learned."""
        word = _learned(settings, base).get(SUBJECT_TOKEN, settings.trigger_word)
        return f"{word} {class_noun}"

    def encoding(self, settings: Settings, base: BaseModel, class_noun: str) -> EncodingSettings:
        """The frame set, and prompts with their masked variants."""
        learned, regular = _learned(settings, base), self.regularisation(settings)
        return EncodingSettings(
            num_frames=settings.frames,
            drop=TokenDropSettings(
                probability=0.0 if _encodes_live(settings) else _reencoding(regular), variants=regular.token_variants
            ),
            subject=self.subject(settings, base, class_noun),
            motion=learned.get(MOTION_TOKEN, ""),
            learned=learned,
            crops=CropSettings(each=regular.crops, zoom=regular.crop_zoom),
        )

    def prior(self, settings: Settings) -> PriorRequest | None:
        """The base's own clips of the class, unless prior preservation is off."""
        regular = self.regularisation(settings)
        if regular.prior_weight == 0:
            return None
        return PriorRequest(
            clips=regular.prior_clips, token_drop=_reencoding(regular), token_variants=regular.token_variants
        )

    def _spec(self, settings: Settings, stage: str) -> StageSpec:
        motion = stage == MOTION
        return StageSpec(
            name=stage,
            method=self.name,
            version=STAGE_VERSION,
            data="clips" if motion else "frames",
            steps=settings.motion_steps if motion else settings.identity_steps,
            settings=_stage_plan(settings, self.regularisation(settings), stage).model_dump(mode="json"),
            after=IDENTITY if motion else None,
        )


def _reencoding(regular: Regularisation) -> float:
    return regular.token_drop if regular.token_drop_mode == "reencode" else 0.0


def _encodes_live(settings: TwoStageSettings) -> bool:
    return settings.special_tokens == "encoder_input"


def _learned(settings: TwoStageSettings, base: BaseModel) -> dict[str, str]:
    return {} if settings.special_tokens == "word" else sentinels(base, LEARNED_WORDS)


def _stage_plan(settings: TwoStageSettings, regular: Regularisation, stage: str) -> AdapterStagePlan:
    motion = stage == MOTION
    words: tuple[str, ...] = (SUBJECT_TOKEN, MOTION_TOKEN) if motion else (SUBJECT_TOKEN,)
    if settings.special_tokens == "word":
        words = ()
    return AdapterStagePlan(
        rank=settings.rank,
        basis=settings.basis,
        zero_factor=settings.zero_factor,
        cross_attention=settings.cross_attention,
        learn_residual=motion,
        batch=settings.batch,
        optimizer=settings.optimizer,
        dropout=regular.motion_dropout if motion else regular.identity_dropout,
        dropout_rescale=regular.dropout_rescale,
        dropout_on=(("residual",) if regular.mask_on == "B2" else ("coefficients", "residual"))
        if motion
        else ("coefficients",),
        prior_weight=regular.prior_weight,
        pad_probability=regular.token_drop if regular.token_drop_mode == "pad" else 0.0,
        words=words,
        learning_words=words[-1:],
        full_mask_share=settings.full_mask_share,
        words_at="encoder_input" if _encodes_live(settings) else "encoder_output",
        live_drop=regular.token_drop if _encodes_live(settings) else 0.0,
        self_conditioning=regular.self_conditioning,
        estimate_probability=regular.self_conditioning_probability,
    )
