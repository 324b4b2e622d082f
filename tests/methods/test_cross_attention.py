"""An adapter without the layers that attend to the text."""

from __future__ import annotations

import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.methods.baselines.dreammix import DreamMix
from pipeline_lib.methods.baselines.lora import PlainLora
from pipeline_lib.methods.baselines.two_stage import TwoStage
from pipeline_lib.methods.set_and_sequence.method import SetAndSequence
from pipeline_lib.methods.settings import settings_from
from pipeline_lib.models.base import FamilySpec
from pipeline_lib.models.cogvideox_spec import LORA_TARGETS as JOINT
from pipeline_lib.models.wan_spec import LORA_TARGETS
from pipeline_lib.records import FrameRules

RULES = FrameRules(height=64, width=64, num_frames=13, frames_per_second=8)


def spec_of(name: str, targets: tuple[str, ...], cross_attention: str) -> FamilySpec:
    return FamilySpec(
        name=name,
        frame_rules=RULES,
        sigma_shift=3.0,
        guidance_scale=3.0,
        sampling_steps=20,
        lora_targets=targets,
        cross_attention=cross_attention,
    )


def test_layers_that_attend_to_the_text_are_left_out_where_there_are_any():
    wan = spec_of("wan", LORA_TARGETS, "attn2")
    assert wan.adapted(True) == LORA_TARGETS
    left = wan.adapted(False)
    assert left and not [name for name in left if name.startswith("attn2")]
    assert {name for name in LORA_TARGETS if not name.startswith("attn2")} == set(left)
    joint = spec_of("cogvideox", JOINT, "")
    assert joint.adapted(True) == JOINT
    with pytest.raises(InputError, match="cogvideox, whose text and video attend to each other"):
        joint.adapted(False)


@pytest.mark.parametrize("method", [SetAndSequence(), TwoStage(), PlainLora(), DreamMix()], ids=lambda one: one.name)
def test_every_stage_is_told_and_a_spec_of_before_stays_as_it_was(method):
    for adapted in (True, False):
        settings = settings_from(method, "portable", {"cross_attention": adapted})
        for spec in method.plan(settings, has_clips=True):
            assert spec.settings.get("cross_attention", True) is adapted
            assert ("cross_attention" in spec.settings) is not adapted
