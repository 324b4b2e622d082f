"""What a person may set of Set-and-Sequence, and the presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from pipeline_lib.methods.settings import MethodSettings
from pipeline_lib.methods.two_stage_settings import DEMO, POCKET, Regularisation, TwoStageSettings


class SetAndSequenceSettings(TwoStageSettings, Regularisation):
    """Both stages and all regularisers; steps are the paper's with regularisation (section 8).

    Attributes:
        identity_steps: steps of Stage I.
        motion_steps: steps of Stage II.
    """

    identity_steps: int = Field(default=600, ge=1)
    motion_steps: int = Field(default=900, ge=1)


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {"special_tokens": "encoder_output"},
    "portable": {},
    # Scaled to the draft pocket base by the few trials that README.md logs: `pocket` is for fidelity to a clip of
    # any kind, `demo` for a subject that also follows to other scenes.
    "pocket": {**POCKET, "prior_weight": 0.0, "identity_dropout": 0.3, "motion_dropout": 0.15},
    "demo": {
        **DEMO,
        "cross_attention": False,
        "prior_weight": 0.0,
        "identity_dropout": 0.5,
        "motion_dropout": 0.25,
        "token_variants": 17,
        "crops": 1,
    },
}

SETTINGS = MethodSettings("set_and_sequence", SetAndSequenceSettings, PRESETS)
