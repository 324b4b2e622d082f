"""Textual inversion (Gal et al. 2022): one word learns at the text encoder's input, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pipeline_lib.methods.adapter_stage import AdapterStagePlan
from pipeline_lib.methods.baselines.one_stage import OneStageMethod
from pipeline_lib.methods.baselines.settings import TEXTUAL_INVERSION, TextualInversionSettings
from pipeline_lib.methods.settings import OptimizerValues
from pipeline_lib.models.base import BaseModel
from pipeline_lib.records import Record
from pipeline_lib.training.data import SUBJECT_TOKEN, sentinels


class TextualInversion(OneStageMethod[TextualInversionSettings]):
    """Implements :class:`pipeline_lib.methods.method.Method`: the word starts as the class noun that it stands before.

    A concept always holds a plain LoRA, and every reader of one (the stock loaders, ComfyUI, samples at a strength,
    the bare LoRA's row of a report) relies on it. So there is one here too, the smallest there is, of rank 1: it is
    zero from the start and does not learn, and whoever loads it alone gets the base. The word is beside it, in
    `tokens.safetensors`, as learned words of other methods are.
    """

    name: ClassVar[str] = TEXTUAL_INVERSION.name
    settings_type: ClassVar[type[Record]] = TEXTUAL_INVERSION.settings_type
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = TEXTUAL_INVERSION.presets
    starts_from_loras: ClassVar[bool] = False

    def adapter_plan(self, settings: TextualInversionSettings, has_clips: bool) -> AdapterStagePlan:  # noqa: ARG002 - one protocol
        """An adapter that stays zero, and one word that learns."""
        rates = settings.word_optimizer
        return AdapterStagePlan(
            rank=1,
            learn_factors=False,
            batch=settings.batch,
            optimizer=OptimizerValues(
                learning_rate=rates.learning_rate,
                decay=rates.decay,
                token_learning_rate=rates.learning_rate,
                betas=rates.betas,
                weight_decay=0.0,
                max_gradient_norm=rates.max_gradient_norm,
            ),
            words=(SUBJECT_TOKEN,),
            learning_words=(SUBJECT_TOKEN,),
            words_at="encoder_input",
            full_mask_share=settings.full_mask_share,
        )

    def subject(self, settings: TextualInversionSettings, base: BaseModel, class_noun: str) -> str:  # noqa: ARG002 - one protocol
        """`<sentinel> noun`."""
        return f"{self.learned(base)[SUBJECT_TOKEN]} {class_noun}"

    def learned(self, base: BaseModel) -> dict[str, str]:
        """The subject's word."""
        return sentinels(base, (SUBJECT_TOKEN,))
