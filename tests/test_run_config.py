"""The run config: what a person writes, and what they are told when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline_lib.errors import ConfigError
from pipeline_lib.observers import open_captioner, segmenter_path
from pipeline_lib.registry import BASES, choose_method, encoder_folder, open_base
from pipeline_lib.run_config import RunConfig, config_text, load_config, parse_config, with_settings
from pipeline_lib.sections import ENCODERS


def test_the_commented_config_holds_every_key_and_loads_to_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(config_text(RunConfig()))
    assert load_config(path) == RunConfig()
    written = yaml.safe_load(path.read_text())
    assert written == RunConfig().model_dump(mode="json")
    assert all("#" in line for line in path.read_text().splitlines() if ":" in line)


def test_a_config_survives_being_written(tmp_path: Path) -> None:
    config = parse_config(
        {
            "concept": {"name": "Bello 2.0"},
            "captions": [{"class_noun": "dog", "static": 'says "woof" # not a comment', "motion": "läuft"}],
            "method": {"settings": {"optimizer": {"learning_rate": 1e-3}, "rank": 4}},
            "samples": {"prompts": ["{subject}: a # b", "{subject} with 'quotes'"], "seeds": [1, 2]},
        }
    )
    path = tmp_path / "run.yaml"
    path.write_text(config_text(config))
    assert load_config(path) == config


@pytest.mark.parametrize(
    ("values", "key", "nearest"),
    [
        ({"concpt": {}}, "`concpt`", "`concept`"),
        ({"concept": {"sbject": "dog"}}, "`concept.sbject`", "`concept.subject`"),
        ({"training": {"micro_batches": 2}}, "`training.micro_batches`", "`training.micro_batch`"),
        ({"training": {"seeds": [1]}}, "`training.seeds`", "`samples.seeds`"),
        ({"captions": [{"class_noun": "dog", "statik": ""}]}, "statik", "static"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_valid_one(values: dict[str, object], key: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(values)
    assert key in str(error.value)
    assert nearest in str(error.value)


def test_an_unknown_key_like_nothing_else_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match="valid keys here: source, revision"):
        parse_config({"base": {"qqqq": 1}})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("concept: [", "not valid YAML"),
        ("", "holds no settings"),
        ("- a\n- b\n", "holds no settings"),
        ("training: {device: tpu}", "training.device"),
        ("samples: {seeds: []}", "samples.seeds"),
        ("seed: -1", "seed"),
        ("samples: {guidance_scale: .nan}", "samples.guidance_scale"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_a_bad_file_is_named_with_its_key(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_a_missing_or_binary_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "no.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "binary.yaml")


def test_paths_are_relative_to_the_file_and_names_are_not_paths(tmp_path: Path) -> None:
    (tmp_path / "models" / "wan").mkdir(parents=True)
    (tmp_path / "pocket").mkdir()
    path = tmp_path / "run.yaml"
    path.write_text(
        "concept: {inputs: [clip.mp4, /abs/x.mp4]}\nsamples: {prompts_file: p.txt}\nbase: {source: models/wan}"
    )
    config = load_config(path)
    assert config.concept.inputs == (str(tmp_path / "clip.mp4"), "/abs/x.mp4")
    assert config.samples.prompts_file == str(tmp_path / "p.txt")
    assert config.base.source == str(tmp_path / "models" / "wan")
    path.write_text("base: {source: pocket}")
    assert load_config(path).base.source == "pocket"
    path.write_text("base: {source: org/name}")
    assert load_config(path).base.source == "org/name"


def test_settings_are_dotted_keys_with_yaml_values() -> None:
    config = with_settings(
        RunConfig(),
        ["training.micro_batch=2", "method.settings.optimizer.learning_rate=0.01", "samples.seeds=[3, 4]", "seed=7"],
    )
    assert config.training.micro_batch == 2
    assert config.method.settings == {"optimizer": {"learning_rate": 0.01}}
    assert config.samples.seeds == (3, 4)
    assert config.seed == 7
    assert with_settings(config, ["method.preset="]).method.preset == ""


@pytest.mark.parametrize("setting", ["training", "=3", "seed.x=1", "nothing.here=1", "samples.seeds=[", "seed=dog"])
def test_a_setting_that_cannot_be_used_is_an_error(setting: str) -> None:
    with pytest.raises(ConfigError):
        with_settings(RunConfig(), [setting])


@pytest.mark.parametrize(
    ("name", "inputs", "expected"),
    [
        ("My Dog", [], "my-dog"),
        ("", ["/tmp/Some Clip (1).mp4"], "some-clip-1"),
        ("", ["/tmp/….mp4"], "concept"),
        ("", [], "concept"),
        ("", ["a" * 300 + ".mp4"], "a" * 48),
    ],
)
def test_a_concept_name_is_safe_as_a_path(name: str, inputs: list[str], expected: str) -> None:
    assert parse_config({"concept": {"name": name, "inputs": inputs}}).concept_name == expected


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().seed = 3  # type: ignore[misc]


def test_presets_by_base_and_settings_over_presets() -> None:
    assert choose_method(RunConfig()).preset == "pocket"
    elsewhere = parse_config({"base": {"source": "/some/folder"}})
    assert choose_method(elsewhere).preset == "portable"
    config = with_settings(RunConfig(), ["method.preset=demo", "method.settings.optimizer.weight_decay=0.5"])
    choice = choose_method(config)
    assert choice.settings.optimizer.weight_decay == 0.5
    plain = choose_method(with_settings(RunConfig(), ["method.preset=demo"]))
    assert choice.settings.optimizer.learning_rate == plain.settings.optimizer.learning_rate


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("method.name=set_and_sequense", "did you mean 'set_and_sequence'"),
        ("method.preset=demoo", "did you mean 'demo'"),
        ("method.settings.rnk=4", "did you mean `method.settings.rank`"),
        ("method.settings.rank=0", "method.settings.rank"),
        ("method.settings.optimizer.lr=1", "method.settings.optimizer.lr"),
        ("method.settings.optimizer.learn_rate=1", "did you mean `method.settings.optimizer.learning_rate`"),
    ],
)
def test_a_bad_method_setting_names_key_and_fix(setting: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        choose_method(with_settings(RunConfig(), [setting]))
    assert said in str(error.value)


def test_unknown_bases_captioners_and_encoders_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'pocket'"):
        open_base(with_settings(RunConfig(), ["base.source=poket"]), "cpu", "float32")
    with pytest.raises(ConfigError, match=r"concept\.captioner"):
        open_captioner(with_settings(RunConfig(), ["concept.captioner=templat"]))
    with pytest.raises(ConfigError, match=r"unknown mask\.segmenter"):
        segmenter_path(with_settings(RunConfig(), ["mask.segmenter=nowhere"]))
    with pytest.raises(ConfigError, match="brings no segmenter"):
        segmenter_path(with_settings(RunConfig(), ["mask.segmenter=auto", f"base.source={tmp_path}"]))
    with pytest.raises(ConfigError, match=r"evaluation\.encoder"):
        encoder_folder(with_settings(RunConfig(), [f"evaluation.encoder={tmp_path}"]))
    assert encoder_folder(with_settings(RunConfig(), ["evaluation.encoder=none"])) is None
    for role in ENCODERS:
        with pytest.raises(ConfigError, match=rf"evaluation\.{role}: no model"):
            encoder_folder(with_settings(RunConfig(), [f"evaluation.{role}={tmp_path}"]), role)
        with_its_own, with_none = RunConfig(), with_settings(RunConfig(), [f"base.source={tmp_path}"])
        assert encoder_folder(with_its_own, role) == getattr(BASES["pocket"], role)
        assert encoder_folder(with_none, role) is None


def test_a_setting_that_would_save_nothing_is_refused_in_plain_words():
    with pytest.raises(ConfigError, match="`training`: storage and swapped_blocks save nothing without") as refused:
        with_settings(RunConfig(), ["training.storage=fp8"])
    assert "Value error" not in str(refused.value) and "micro_batch" not in str(refused.value)


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"sharded": True}, "there is one: set processes"),
        (
            {"sharded": True, "processes": 2, "storage": "nf4", "gradient_checkpointing": True},
            "storage: full alone: nf4",
        ),
        ({"sharded": True, "processes": 2, "preview_every": 2}, "sharded goes without preview_every"),
        ({"sharded": True, "processes": 2, "swapped_blocks": 1, "gradient_checkpointing": True}, "swapped_blocks"),
        ({"keep_attention": True}, "gradient_checkpointing recomputes: set that to true"),
    ],
)
def test_memory_settings_that_do_not_go_together_are_refused(training: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_config({"training": training})
