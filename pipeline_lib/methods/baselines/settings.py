"""What a person may set of the baselines, and their presets.

Presets of one name cost the same in every method that is compared: as many steps and draws as both stages of
Set-and-Sequence take together, at its rank. Rates of `demo` are each method's own, tuned with the same number of tries
(README beside this file).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from pipeline_lib.methods.settings import FULL_MASK_SHARE, MethodSettings, OptimizerValues, laid_over
from pipeline_lib.methods.two_stage_settings import DEMO, POCKET, TwoStageSettings
from pipeline_lib.records import Record


class OneStageSettings(Record):
    """What all baselines of a single stage have; the paper gives them the sum of both stages' steps.

    Attributes:
        steps: of the only stage.
        batch: draws a step; as many of the prior again.
        full_mask_share: of samples whose whole picture counts, where masks are given; the others count the subject.
    """

    steps: int = Field(default=1500, ge=1)
    batch: int = Field(default=8, ge=1)
    full_mask_share: float = Field(default=FULL_MASK_SHARE, ge=0, le=1)


class LoraSettings(OneStageSettings):
    """Settings of plain LoRA.

    The paper's LoRA-8 has the rank of its own method, and so has each preset here; `rank` 1 and 8 are the papers' rows.

    Attributes:
        rank: of the update.
        cross_attention: whether the layers that attend to the text learn too.
        optimizer: AdamW.
        prior_weight: λ of prior preservation; 0 samples nothing.
        prior_clips: clips sampled from the base for a class, once.
        trigger_word: the rare word that stands for the subject.
    """

    rank: int = Field(default=8, ge=1)
    cross_attention: bool = True
    optimizer: OptimizerValues = OptimizerValues()
    prior_weight: float = Field(default=0.0, ge=0)
    prior_clips: int = Field(default=32, ge=1)
    trigger_word: str = Field(default="zwx", min_length=1, pattern=r"^[\w-]+$")


class DreamMixSettings(OneStageSettings):
    """Settings of DreamMix.

    Attributes:
        rank: of the update.
        cross_attention: whether the layers that attend to the text learn too.
        optimizer: AdamW.
        frame_share: probability of a step to see frames; else it sees clips.
        trigger_word: the rare word that stands for the subject.
    """

    rank: int = Field(default=8, ge=1)
    cross_attention: bool = True
    optimizer: OptimizerValues = OptimizerValues()
    frame_share: float = Field(default=0.5, gt=0, lt=1)
    trigger_word: str = Field(default="zwx", min_length=1, pattern=r"^[\w-]+$")


class WordOptimizerValues(Record):
    """AdamW for a learned word, which has no weight decay.

    Attributes:
        learning_rate: of the word; that of Gal et al. (2022), not multiplied by the batch.
        decay: share of the steps, the last ones, over which the rate falls linearly to zero.
        betas: of AdamW.
        max_gradient_norm: of the word's gradient.
    """

    learning_rate: float = Field(default=5e-3, gt=0)
    decay: float = Field(default=0.0, ge=0, le=1)
    betas: tuple[float, float] = (0.9, 0.99)
    max_gradient_norm: float = Field(default=0.05, gt=0)


class TextualInversionSettings(OneStageSettings):
    """Settings of textual inversion.

    Attributes:
        word_optimizer: AdamW; not `optimizer`, whose rates are those of an adapter.
    """

    word_optimizer: WordOptimizerValues = WordOptimizerValues()


def _in_one_stage(preset: Mapping[str, Any]) -> dict[str, Any]:
    """Steps and draws of both stages."""
    return {"steps": preset["identity_steps"] + preset["motion_steps"], "batch": preset["batch"]}


def _lora(preset: Mapping[str, Any]) -> dict[str, Any]:
    shared = ("rank", "optimizer")
    return {**_in_one_stage(preset), **{name: preset[name] for name in shared if name in preset}}


def _word(preset: Mapping[str, Any], learning_rate: float) -> dict[str, Any]:
    rates = {"learning_rate": learning_rate, "decay": preset["optimizer"]["decay"], "max_gradient_norm": 1.0}
    return {**_in_one_stage(preset), "word_optimizer": rates}


LORA_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    "portable": {},
    "pocket": _lora(POCKET),
    "demo": _lora(DEMO),
}
DREAMMIX_PRESETS: Mapping[str, Mapping[str, Any]] = {
    **LORA_PRESETS,
    "demo": laid_over(LORA_PRESETS["demo"], {"optimizer": {"learning_rate": 1e-3}}),
}
WORD_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    "portable": {},
    "pocket": _word(POCKET, 3e-2),
    "demo": _word(DEMO, 1e-1),
}
TWO_STAGE_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {"special_tokens": "encoder_output"},
    "portable": {},
    "pocket": POCKET,
    "demo": DEMO,
}

LORA = MethodSettings("lora", LoraSettings, LORA_PRESETS)
TWO_STAGE = MethodSettings("two_stage", TwoStageSettings, TWO_STAGE_PRESETS)
TEXTUAL_INVERSION = MethodSettings("textual_inversion", TextualInversionSettings, WORD_PRESETS)
DREAMMIX = MethodSettings("dreammix", DreamMixSettings, DREAMMIX_PRESETS)
