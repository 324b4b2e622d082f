"""What is compared: entries, the settings that they come to, the concepts; nothing is run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from pipeline_lib.compare.concepts import (
    chosen_creatures,
    chosen_gizmos,
    creature_config,
    creature_files,
    gizmo_config,
    moves,
)
from pipeline_lib.compare.entries import (
    ABLATIONS,
    CORE,
    Entry,
    check_shared_settings,
    chosen_entries,
    differing,
    entry_config,
    known_entries,
)
from pipeline_lib.compare.paper import ORDERINGS, PAPER, PAPER_METRICS, RATERS
from pipeline_lib.errors import ConfigError, InputError
from pipeline_lib.generation.prompts import check_prompts, read_prompts
from pipeline_lib.metrics import CATALOG
from pipeline_lib.registry import choose_settings, method_names
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.caption import class_noun
from pipeline_lib.world.gizmos import CONFIRMATION, REPORTING, TUNING, gizmo
from pipeline_lib.world.pairs import PAIR_NOUN, pair

DEMO = RunConfig.model_validate({"method": {"preset": "demo"}})


def settings(entry: Entry, template: RunConfig = DEMO):
    return choose_settings(entry_config(entry, template))[1]


def with_method(**values) -> RunConfig:
    return RunConfig.model_validate({"method": {"preset": "demo", "settings": values}})


@pytest.mark.parametrize("entry", [*CORE, *ABLATIONS], ids=lambda entry: entry.label)
@pytest.mark.parametrize("preset", ["demo", "portable", "pocket"])
def test_every_entry_is_a_run_that_its_method_takes(entry: Entry, preset: str) -> None:
    template = RunConfig.model_validate({"method": {"preset": preset}})
    chosen = settings(entry, template)
    for key, value in entry.settings.items():
        assert getattr(chosen, key) == value


def test_the_core_is_the_papers_comparison() -> None:
    labels = [entry.label for entry in chosen_entries([])]
    assert labels == ["set_and_sequence", "two_stage", "lora-8", "lora-1", "dreammix", "textual_inversion"]
    known = known_entries()
    assert {row.entry for row in PAPER} - {"newmove", "dreamvideo"} == set(labels)
    assert all(len(row) == len(PAPER_METRICS) + 2 for row in PAPER)
    assert RATERS.keys() <= known.keys()
    for claim in ORDERINGS:
        assert {claim.row, *claim.against} <= {*labels, "lora", "preset-rate"}, claim.name
        assert set(claim.metrics) <= CATALOG.keys()
        assert claim.row not in claim.against
    assert {name for _, _, metrics in PAPER_METRICS for name in metrics} <= CATALOG.keys()


def test_what_is_stated_at_one_rate_is_of_rows_that_have_one() -> None:
    known = known_entries()
    ours, main = settings(known["preset-rate"]), settings(CORE[0])
    rate = ours.optimizer.learning_rate
    same = ours.optimizer.model_copy(update={"learning_rate": main.optimizer.learning_rate})
    assert main.optimizer.learning_rate < rate
    assert ours.model_copy(update={"optimizer": same}) == main, "they differ in nothing else"
    claims = [claim for claim in ORDERINGS if claim.row == "preset-rate"]
    assert len(claims) == 8
    for claim in claims:
        assert {settings(known[row]).optimizer.learning_rate for row in claim.against} == {rate}
        (former,) = [other for other in ORDERINGS if f"At one rate: {other.statement}" == claim.statement]
        assert former.row == "set_and_sequence"
        assert (former.relation, former.against, former.metrics) == (claim.relation, claim.against, claim.metrics)


def test_the_main_row_is_the_papers_method_and_what_is_ours_a_row_of_its_own() -> None:
    known = known_entries()
    assert settings(CORE[0]).crops == 0
    assert settings(known["with-crops"]).crops == choose_settings(DEMO)[1].crops == 1, "what the preset has"
    assert settings(known["as-preset"]) == choose_settings(DEMO)[1]
    ours = ("with-crops", "no-cross-attention", "as-preset")
    others = [entry for entry in ABLATIONS if not entry.label.startswith(ours)]
    assert {(settings(entry).crops, settings(entry).cross_attention) for entry in others} == {(0, True)}


def test_single_stages_get_the_steps_of_both() -> None:
    both = settings(CORE[0])
    one = settings(known_entries()["lora-1"])
    assert (one.steps, one.rank) == (both.identity_steps + both.motion_steps, 1)
    short = with_method(identity_steps=3, motion_steps=4)
    assert settings(known_entries()["lora-8"], short).steps == 7
    assert settings(known_entries()["lora-8"], with_method(steps=5)).steps == 5, "but what a person says, goes"


def test_shared_settings_go_to_those_that_have_them_and_an_entry_keeps_what_makes_it() -> None:
    template = with_method(rank=4, identity_dropout=0.1)
    assert settings(CORE[0], template).rank == 4
    assert settings(CORE[0], template).identity_dropout == 0.1
    assert settings(known_entries()["lora-1"], template).rank == 1
    check_shared_settings(chosen_entries([]), template)
    with pytest.raises(ConfigError, match=r"method\.settings\.rang.*did you mean.*rank"):
        check_shared_settings(chosen_entries([]), with_method(rang=4))
    check_shared_settings(chosen_entries(["lora-1"]), with_method(identity_steps=3))  # its own steps follow from it
    with pytest.raises(ConfigError, match="identity_dropout"):
        check_shared_settings(chosen_entries(["lora-1"]), template)
    with pytest.raises(ConfigError, match="--methods"):
        check_shared_settings(CORE, RunConfig.model_validate({"method": {"name": "lora"}}))


def test_entries_are_chosen_by_label_or_by_method() -> None:
    assert [entry.label for entry in chosen_entries(["lora-1", "base", "lora-1"])] == ["lora-1"]
    (plain,) = chosen_entries(["lora"])
    assert (plain.method, plain.settings) == ("lora", {})
    assert set(method_names()) <= known_entries().keys()
    with pytest.raises(ConfigError, match=r"unknown method 'lora-9'.*did you mean 'lora-(8|1)'"):
        chosen_entries(["lora-9"])
    ablations = chosen_entries([], ablations=True)
    assert [entry.label for entry in ablations] == ["set_and_sequence", *(entry.label for entry in ABLATIONS)]
    assert max(Counter(entry.label for entry in (*CORE, *ABLATIONS)).values()) == 1


def test_what_a_person_sets_wins_over_what_the_main_row_leaves_out() -> None:
    asked = with_method(cross_attention=False, crops=2, rank=4)
    for entry in (CORE[0], known_entries()["rank-16"]):
        assert (settings(entry, asked).cross_attention, settings(entry, asked).crops) == (False, 2)
    assert settings(CORE[0], asked).rank == 4
    assert settings(known_entries()["rank-16"], asked).rank == 16, "what makes it that entry"


def test_what_was_tuned_counts_at_its_preset_alone_and_loses_to_a_person() -> None:
    entry = Entry(label="x", method="lora", tuned={"demo": {"optimizer": {"learning_rate": 0.123}}})

    def optimizer(preset: str, **values: float):
        asked = {"method": {"preset": preset, "settings": {"optimizer": values}}}
        return settings(entry, RunConfig.model_validate(asked)).optimizer

    assert optimizer("demo").learning_rate == 0.123
    assert optimizer("paper").learning_rate == 1e-4
    assert optimizer("demo", learning_rate=0.5).learning_rate == 0.5
    kept = optimizer("demo", decay=0.25)
    assert (kept.learning_rate, kept.decay) == (0.123, 0.25), "key by key"


@pytest.mark.parametrize("label", ["token-output", "token-input"])
def test_learned_words_learn_at_a_tenth_of_the_adapters_rate_as_in_the_paper(label: str) -> None:
    for template in (DEMO, *(RunConfig.model_validate({"method": {"preset": name}}) for name in ("pocket", "paper"))):
        rates = settings(known_entries()[label], template).optimizer
        assert rates.token_learning_rate == pytest.approx(rates.learning_rate / 10)
        assert rates.learning_rate == settings(CORE[0], template).optimizer.learning_rate


def test_each_of_the_presets_three_changes_has_a_row_with_it_alone_and_one_without_it_alone() -> None:
    def changed(label: str) -> tuple[bool, bool, bool]:
        has, main = settings(known_entries()[label], DEMO), settings(CORE[0], DEMO)
        other = {name for name in type(has).model_fields if getattr(has, name) != getattr(main, name)}
        assert other <= {"optimizer", "crops", "cross_attention"}
        assert has.optimizer.model_copy(update={"learning_rate": 1e-3}) == main.optimizer
        return has.optimizer.learning_rate > 1e-3, has.crops > 0, not has.cross_attention

    alone = {label: sum(changed(label)) for label in ("preset-rate", "with-crops", "no-cross-attention")}
    without = {
        f"as-preset{end}": sum(changed(f"as-preset{end}")) for end in ("-slower", "-no-crops", "-cross-attention")
    }
    assert set(alone.values()) == {1} and len({changed(label) for label in alone}) == 3
    assert set(without.values()) == {2} and len({changed(label) for label in without}) == 3
    assert (changed("set_and_sequence"), changed("as-preset")) == ((False,) * 3, (True,) * 3)


def test_an_ablation_that_changes_nothing_is_left_out_and_told() -> None:
    kept, notes = differing(chosen_entries([], ablations=True), DEMO)
    labels = {entry.label for entry in kept}
    assert "set_and_sequence" in labels
    assert "no-prior" not in labels, "the preset demo has none"
    assert "with-prior" in labels
    assert "rank-32" not in labels, "the preset's own rank"
    assert {"no-cross-attention", "with-crops", "as-preset"} <= labels, "what the preset adds to the paper's"
    assert any("no-prior" in note and "set_and_sequence" in note for note in notes)
    assert len(kept) + len(notes) == len(ABLATIONS) + 1


def test_of_equal_entries_the_cores_label_stays_in_the_place_of_the_first() -> None:
    kept, (note,) = differing(chosen_entries(["rank-32", "lora-1", "set_and_sequence"]), DEMO)
    assert [entry.label for entry in kept] == ["set_and_sequence", "lora-1"], "orderings and raters know no rank-32"
    assert note == "rank-32 is left out: its settings are those of set_and_sequence"
    kept, _ = differing(chosen_entries(["rank-32", "no-prior"]), DEMO)
    assert [entry.label for entry in kept] == ["rank-32"], "without the core the first"


def test_gizmos_are_chosen_by_set_or_number() -> None:
    assert chosen_gizmos("reporting") == REPORTING
    assert chosen_gizmos("tuning") == TUNING
    assert chosen_gizmos("confirmation") == CONFIRMATION
    assert chosen_gizmos("all") == (*TUNING, *REPORTING), "what is kept for confirmation is asked for by name"
    assert chosen_gizmos("3, 0,3") == (3, 0)
    for wrong in ("best", "1,x", "", "99"):
        with pytest.raises(InputError):
            chosen_gizmos(wrong)


def test_pairs_are_chosen_by_set_or_number_beside_gizmos() -> None:
    assert chosen_creatures("pairs") == tuple(pair(index) for index in (2, 3, 4, 5))
    assert chosen_creatures("pairs-tuning, 3") == (pair(0), pair(1), gizmo(3))
    assert chosen_creatures("pair:0,gizmo:0,0") == (pair(0), gizmo(0)), "a pair is none of the gizmos"
    for wrong, said in (
        ("pair:99", "no such pair; got 99; expected 0"),
        ("pair", "pairs, pairs-tuning"),
        ("pear:1", "pair:2"),
    ):
        with pytest.raises(InputError, match=said):
            chosen_creatures(wrong)
    with pytest.raises(InputError, match="gizmos alone"):
        chosen_gizmos("reporting,pair:0")


def test_one_word_stands_for_both_of_a_pair(tmp_path: Path) -> None:
    config = creature_config(pair(0), tmp_path, DEMO)
    creature_files(pair(0), tmp_path)
    assert (config.concept_name, config.evaluation.truth, moves(pair(0))) == ("bim-and-zoffle", "pair:0", "pair")
    assert class_noun(config) == PAIR_NOUN
    (caption,) = config.captions
    assert caption.full_prompt(f"sks {PAIR_NOUN}").startswith(f"a sks {PAIR_NOUN}, both moving")
    assert [Path(text).is_file() for text in (*config.concept.inputs, config.samples.prompts_file)] == [True, True]
    prompts, notes = check_prompts(read_prompts(Path(config.samples.prompts_file)), PAIR_NOUN)
    assert (len(prompts), notes) == (10, [])


def test_a_gizmos_run_keeps_the_template_and_adds_its_own() -> None:
    template = RunConfig.model_validate(
        {"method": {"preset": "demo"}, "samples": {"seeds": [0, 1], "num_inference_steps": 3},
         "evaluation": {"encoder": "none"}, "seed": 5}
    )  # fmt: skip
    config = gizmo_config(4, Path("/gizmos"), template)
    assert config.concept.inputs == ("/gizmos/tocket.mp4",)
    assert (config.samples.seeds, config.samples.num_inference_steps, config.seed) == ((0, 1), 3, 5)
    assert (config.evaluation.encoder, config.evaluation.truth) == ("none", "gizmo:4")
    assert config.samples.prompts_file == "/gizmos/tocket.prompts.yaml"


def test_every_kind_of_motion_is_among_the_reporting_gizmos() -> None:
    assert Counter(moves(gizmo(index)) for index in REPORTING) == {"erratic": 4, "slow": 2, "fast": 2}
