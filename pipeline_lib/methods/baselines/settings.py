"""What a person may set of plain LoRA, and the presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from pipeline_lib.methods.settings import FULL_MASK_SHARE, MethodSettings, OptimizerValues
from pipeline_lib.records import Record


class LoraSettings(Record):
    """Settings of plain LoRA; single-stage baselines get the sum of both stages' steps.

    Attributes:
        rank: of the update.
        steps: of the only stage.
        batch: draws a step; as many of the prior again.
        optimizer: AdamW.
        prior_weight: λ of prior preservation; 0 samples nothing.
        prior_clips: clips sampled from the base for a class, once.
        trigger_word: the rare word that stands for the subject.
        full_mask_share: of samples whose whole picture counts, where masks are given; the others count the subject.
    """

    rank: int = Field(default=8, ge=1)
    steps: int = Field(default=1500, ge=1)
    batch: int = Field(default=8, ge=1)
    optimizer: OptimizerValues = OptimizerValues()
    prior_weight: float = Field(default=0.0, ge=0)
    prior_clips: int = Field(default=32, ge=1)
    trigger_word: str = Field(default="zwx", min_length=1, pattern=r"^[\w-]+$")
    full_mask_share: float = Field(default=FULL_MASK_SHARE, ge=0, le=1)


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    "portable": {},
    "pocket": {"steps": 900, "optimizer": {"learning_rate": 2e-3, "max_gradient_norm": 1.0}},
    "demo": {"steps": 450, "optimizer": {"learning_rate": 2e-3, "max_gradient_norm": 1.0}},
}

SETTINGS = MethodSettings("lora", LoraSettings, PRESETS)
