"""What a person may set of Set-and-Sequence's two stages, with regularisers and without, and what its presets cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from pipeline_lib.methods.settings import (
    ESTIMATE_PROBABILITY,
    FULL_MASK_SHARE,
    OptimizerValues,
    SelfConditioningChoice,
)
from pipeline_lib.records import Record


class TwoStageSettings(Record):
    """The two stages; steps are the paper's without regularisation (section 8).

    Attributes:
        rank: of the shared basis.
        basis: which side of the product is frozen in Stage II; the paper does not say (README of Set-and-Sequence).
        zero_factor: which factor starts at zero.
        cross_attention: whether the layers that attend to the text learn too, as in the paper. Without them a prompt
            keeps its say over what was learned; families whose text and video attend to each other in one have no
            such layers, and refuse to leave them out.
        identity_steps: steps of Stage I.
        motion_steps: steps of Stage II.
        batch: independent draws of (frame or window, noise, sigma) a step; as many of the prior again.
        frames: size of the frame set; 0 takes every frame.
        optimizer: AdamW.
        special_tokens: a rare word, or vectors learned at the text encoder's output or at its input (textual
            inversion: the encoder then runs in every step).
        trigger_word: the rare word.
        full_mask_share: of samples whose whole picture counts, where masks are given; the others count the subject.
    """

    rank: int = Field(default=8, ge=1)
    basis: Literal["output", "input"] = "output"
    zero_factor: Literal["basis", "coefficients"] = "basis"
    cross_attention: bool = True
    identity_steps: int = Field(default=150, ge=1)
    motion_steps: int = Field(default=400, ge=1)
    batch: int = Field(default=8, ge=1)
    frames: int = Field(default=8, ge=0)
    optimizer: OptimizerValues = OptimizerValues()
    special_tokens: Literal["word", "encoder_output", "encoder_input"] = "word"
    trigger_word: str = Field(default="zwx", min_length=1, pattern=r"^[\w-]+$")
    full_mask_share: float = Field(default=FULL_MASK_SHARE, ge=0, le=1)


class Regularisation(Record):
    """The regularisers; defaults are the paper's numbers (Table 6) where it gives one.

    Attributes:
        identity_dropout: coefficient dropout of Stage I.
        motion_dropout: coefficient dropout of Stage II.
        dropout_rescale: divides what dropout leaves by its share.
        mask_on: what Stage II's dropout hits.
        prior_weight: λ of prior preservation; 0 turns it off, and nothing is sampled.
        prior_clips: clips sampled from the base for a class, once.
        token_drop: probability of each prompt token to be hidden.
        token_drop_mode: hide before the encoder (exact), or pad out its output rows (cheap).
        token_variants: masked encodings per prompt.
        crops: random crops of each frame of the frame set, beside the whole one (ours; none in the paper), so
            that its place and size are not learned with the subject.
        crop_zoom: largest magnification of a crop; without masks nothing holds a crop to the subject.
        self_conditioning: the model sees its own estimate; auto: on only where the base's card tells that it was
            pretrained with it, as none so far was.
        self_conditioning_probability: of a sample to see it.
    """

    identity_dropout: float = Field(default=0.8, ge=0, lt=1)
    motion_dropout: float = Field(default=0.5, ge=0, lt=1)
    dropout_rescale: bool = True
    mask_on: Literal["B2", "B1+B2"] = "B2"
    prior_weight: float = Field(default=1.0, ge=0)
    prior_clips: int = Field(default=32, ge=1)
    token_drop: float = Field(default=0.1, ge=0, lt=1)
    token_drop_mode: Literal["reencode", "pad"] = "reencode"
    token_variants: int = Field(default=65, ge=2)
    crops: int = Field(default=0, ge=0)
    crop_zoom: float = Field(default=1.5, gt=1, le=4)
    self_conditioning: SelfConditioningChoice = "auto"
    self_conditioning_probability: float = Field(default=ESTIMATE_PROBABILITY, ge=0, le=1)


UNREGULARISED = Regularisation(
    identity_dropout=0.0, motion_dropout=0.0, prior_weight=0.0, token_drop=0.0, self_conditioning="off"
)

# What the presets for the pocket base cost. Methods that are compared take it from here, so that it stays equal; how
# it was found is logged in the README of Set-and-Sequence.
POCKET: Mapping[str, Any] = {
    "rank": 64,
    "identity_steps": 800,
    "motion_steps": 1000,
    "batch": 4,
    "optimizer": {"learning_rate": 4e-3, "decay": 0.5, "max_gradient_norm": 1.0},
}
DEMO: Mapping[str, Any] = {
    "rank": 32,
    "identity_steps": 600,
    "motion_steps": 250,
    "batch": 4,
    "optimizer": {"learning_rate": 3e-3, "decay": 0.5, "max_gradient_norm": 1.0},
}
