"""What makes baselines comparable: two stages that differ in the regularisers alone, and presets of equal cost."""

from __future__ import annotations

import pytest

from pipeline_lib.methods.baselines.dreammix import DreamMix
from pipeline_lib.methods.baselines.lora import PlainLora
from pipeline_lib.methods.baselines.textual_inversion import TextualInversion
from pipeline_lib.methods.baselines.two_stage import TwoStage
from pipeline_lib.methods.set_and_sequence.method import SetAndSequence
from pipeline_lib.methods.settings import settings_from

OFF = {
    "identity_dropout": 0.0,
    "motion_dropout": 0.0,
    "prior_weight": 0.0,
    "token_drop": 0.0,
    "self_conditioning": "off",
}
ONE_STAGE = {method.name: method for method in (PlainLora(), TextualInversion(), DreamMix())}


def specs(method, preset, **changes):
    planned = method.plan(settings_from(method, preset, changes), has_clips=True)
    return [spec.model_copy(update={"method": "any"}) for spec in planned]


@pytest.mark.parametrize("preset", ["paper", "portable", "pocket", "demo"])
@pytest.mark.parametrize("words", ["word", "encoder_output", "encoder_input"])
def test_two_stage_is_set_and_sequence_with_all_regularisers_off(base, preset, words):
    steps = {} if preset in ("pocket", "demo") else {"identity_steps": 150, "motion_steps": 400}
    alike = {"special_tokens": words, "cross_attention": True}
    ours = specs(TwoStage(), preset, **alike)
    assert ours == specs(SetAndSequence(), preset, **alike, **OFF, **steps)
    for left_on in OFF:
        others = {name: value for name, value in OFF.items() if name != left_on}
        if left_on == "prior_weight" and not steps:
            continue  # the pocket presets are without it anyway
        if left_on == "token_drop" and words != "encoder_input":
            continue  # it is in what is encoded, not in a spec
        assert ours != specs(SetAndSequence(), preset, **alike, **others, **steps), left_on
    method, settings = TwoStage(), settings_from(TwoStage(), preset, alike)
    assert method.prior(settings) is None
    encoding = method.encoding(settings, base, "dog")
    regularised = settings_from(SetAndSequence(), preset, alike)
    assert encoding.drop.probability == 0
    assert encoding.subject == SetAndSequence().encoding(regularised, base, "dog").subject
    assert encoding.learned == SetAndSequence().encoding(regularised, base, "dog").learned


def test_the_papers_steps_without_regularisation():
    for preset in ("paper", "portable"):
        assert [spec.steps for spec in specs(TwoStage(), preset)] == [150, 400]
        assert [spec.steps for spec in specs(SetAndSequence(), preset)] == [600, 900]


@pytest.mark.parametrize("preset", ["paper", "portable", "pocket", "demo"])
@pytest.mark.parametrize("name", ONE_STAGE)
def test_a_single_stage_has_the_sum_of_both_stages_steps_and_their_batch(name, preset):
    (ours,) = specs(ONE_STAGE[name], preset)
    stages = specs(SetAndSequence(), preset)
    assert ours.steps == sum(stage.steps for stage in stages)
    assert {ours.settings["batch"]} == {stage.settings["batch"] for stage in stages}
    assert ours.settings["optimizer"]["decay"] == stages[0].settings["optimizer"]["decay"]
    if name != "textual_inversion":
        assert ours.settings["rank"] == stages[0].settings["rank"]
        rate = {"learning_rate": ours.settings["optimizer"]["learning_rate"]}  # tuned, each method's own
        assert ours.settings["optimizer"] == {**stages[0].settings["optimizer"], **rate}


@pytest.mark.parametrize("rank", [1, 8])
def test_the_papers_lora_1_and_lora_8_are_a_setting(rank):
    for preset in PlainLora().presets:
        (spec,) = specs(PlainLora(), preset, rank=rank)
        (plain,) = specs(PlainLora(), preset)
        assert spec.settings == {**plain.settings, "rank": rank}
