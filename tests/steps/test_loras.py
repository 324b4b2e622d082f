"""A whole run on a base with a LoRA of someone else, and one that starts from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import WanPipeline
from safetensors import safe_open

from flows.cli.run import asked_config
from pipeline_lib import load_concept
from pipeline_lib.errors import ConfigError, InputError
from pipeline_lib.models.load import load_base
from pipeline_lib.models.lora_file import lora_digest
from pipeline_lib.models.triple import LoraTriple
from pipeline_lib.personalize import run_in_process
from pipeline_lib.records import SampleRecord
from pipeline_lib.run_config import RunConfig, config_text, load_config, parse_config
from pipeline_lib.seeding import generator
from pipeline_lib.steps.check import check_config
from pipeline_lib.steps.generate import load_samples
from pipeline_lib.steps.run_folder import RunFolder, RunResult, run_identity
from pipeline_lib.steps.state import StateFolder
from tests.models.test_lora_use import lora_file
from tests.steps.tiny import SETTINGS

STRENGTH, GUIDANCE = 0.8, 30.0  # a guidance at which a few steps change what a random base makes
MORE = (
    "method.name=lora",
    "method.settings={steps: 8, rank: 2, batch: 2, optimizer: {learning_rate: 0.03, max_gradient_norm: 10.0}}",
    f"samples.guidance_scale={GUIDANCE}",
    "samples.prompts=['a {subject} on the beach']",
)


def config_with(clip: Path, base: Path, loras: list[str], *settings: str, start: tuple[str, ...] = ()) -> RunConfig:
    """What `mannerism run CLIP --lora FILE:STRENGTH` asks for."""
    options = {"concept.subject": "dog", "base.source": str(base), "base.loras": loras or "", "method.start": [*start]}
    options = {key: value or "" for key, value in options.items()}
    chosen = [text for text in SETTINGS if not text.startswith(("method.settings.", "samples."))]
    return asked_config(str(clip), options, [*chosen, *MORE, *settings])


@pytest.fixture(scope="module")
def style(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lora_file(load_base(str(tiny_folder)), tmp_path_factory.mktemp("loras") / "style.safetensors", scale=4.0)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> StateFolder:
    return StateFolder.open(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="module")
def result(clip: Path, tiny_folder: Path, style: Path, state: StateFolder) -> RunResult:
    return run_in_process(config_with(clip, tiny_folder, [f"{style}:{STRENGTH}"]), state, lambda _event: None)


def steps_of(state: StateFolder, result: RunResult) -> Any:
    record = RunFolder(state, result.run_id).record()
    assert record is not None
    return record.steps


def on_stock_pipeline(base: Path, sample: SampleRecord, style: Path | None, concept: Path | None) -> Any:
    """The sample once more, with nothing of ours but `load_concept`."""
    pipeline: Any = WanPipeline.from_pretrained(base)
    pipeline.set_progress_bar_config(disable=True)
    names = {}
    if style is not None:
        pipeline.load_lora_weights(style, adapter_name="style")
        names["style"] = STRENGTH
    if concept is not None:
        names[load_concept(pipeline, concept).name.replace("-", "_")] = 1.0
    if names:
        pipeline.set_adapters(list(names), list(names.values()))
    spec = load_base(str(base)).spec
    video = pipeline(
        prompt=sample.filled_prompt,
        negative_prompt=spec.negative_prompt,
        height=spec.frame_rules.height,
        width=spec.frame_rules.width,
        num_frames=spec.frame_rules.num_frames,
        num_inference_steps=spec.sampling_steps,
        guidance_scale=GUIDANCE,
        generator=generator(sample.seed, "sample"),
        output_type="np",
    ).frames[0]
    return np.rint(video * 255).astype(int)


def test_the_lora_is_on_the_base_all_the_while_and_no_part_of_the_concept(
    result: RunResult, state: StateFolder, tiny_folder: Path, style: Path
) -> None:
    concept, steps = Path(result.concept), steps_of(state, result)
    for step, trained in (("generate-base", None), ("generate-personalised", concept)):
        sample, shown = load_samples(state.store, steps[step].ref)[0]
        again = on_stock_pipeline(tiny_folder, sample, style, trained)
        assert np.abs(again - shown.astype(int)).max() <= 1, step
        without = on_stock_pipeline(tiny_folder, sample, None, trained)
        assert np.abs(without - shown.astype(int)).max() > 2, "a test of nothing"
    assert LoraTriple.load(concept / "triple.safetensors").rank == 2  # the file's is 3


def test_all_that_is_left_says_what_it_was_trained_with(result: RunResult, style: Path) -> None:
    (told,) = json.loads((Path(result.concept) / "concept.json").read_text())["loras"]
    assert told == {"name": "style.safetensors", "digest": lora_digest(style), "strength": STRENGTH, "expert": "both"}
    words = "style.safetensors (strength 0.8)"
    assert any(words in note and "load it as well" in note for note in result.notes)
    assert words in Path(result.report).read_text()
    with safe_open(result.lora, framework="np") as file:
        assert file.metadata()["mannerism.trained_with"] == words


def test_keys_see_what_a_file_holds_and_not_where_it_lies(
    result: RunResult, clip: Path, tiny_folder: Path, style: Path, state: StateFolder, tmp_path: Path
) -> None:
    copy = Path(shutil.copy(style, tmp_path / style.name))
    same = config_with(clip, tiny_folder, [f"{copy}:{STRENGTH}"])
    assert run_identity(same) == result.run_id
    again = run_in_process(same, state, lambda _event: None)
    assert again.found
    changed = Path(shutil.copy(lora_file(load_base(str(tiny_folder)), tmp_path / "b.safetensors", seed=9), copy))
    others = [
        config_with(clip, tiny_folder, loras)
        for loras in ([], [f"{style}:0.7"], [f"{style}:{STRENGTH}"] * 2, [f"{changed}:{STRENGTH}"])
    ]
    others.append(config_with(clip, tiny_folder, [], start=(str(style),)))
    assert len({run_identity(config) for config in others} | {result.run_id}) == len(others) + 1
    other = run_in_process(others[3], state, lambda _event: None)
    found, mine = steps_of(state, other), steps_of(state, result)
    differ = {name for name, step in mine.items() if step.ref.key != found[name].ref.key}
    assert differ >= set(mine) - {"prepare", "caption"} and "prepare" not in differ


def test_a_run_that_starts_from_a_lora(
    clip: Path, tiny_folder: Path, style: Path, state: StateFolder, result: RunResult
) -> None:
    config = config_with(clip, tiny_folder, [], start=(f"{style}:{STRENGTH}",))
    told: list[dict[str, Any]] = []
    started = run_in_process(config, state, told.append)
    on_base = steps_of(state, result)["train-lora"]
    mine = steps_of(state, started)["train-lora"]
    assert mine.ref.key != on_base.ref.key
    lost = mine.figures["start_energy_lost"]  # of rank 3, two are kept
    assert 0.05 < lost < 0.4
    assert any(f"rank 2 leaves out {lost:.1%}" in note for note in started.notes)
    record = json.loads((Path(started.concept) / "concept.json").read_text())
    assert record["started_from"][0]["name"] == "style.safetensors" and "loras" not in record
    assert run_in_process(config, state, told.append).found


def test_a_method_that_cannot_says_so(clip: Path, tiny_folder: Path, style: Path) -> None:
    check_config(config_with(clip, tiny_folder, [], start=(str(style),)))
    word = ("method.name=textual_inversion", "method.settings={}")
    with pytest.raises(ConfigError, match="method textual_inversion starts from nothing"):
        check_config(config_with(clip, tiny_folder, [], *word, start=(str(style),)))


@pytest.mark.parametrize("key", ["base.loras", "method.start"])
def test_files_are_read_against_the_base_before_anything_starts(
    key: str, clip: Path, tiny_folder: Path, style: Path, tmp_path: Path
) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(style.read_bytes()[:-40])
    config = config_with(clip, tiny_folder, [], f"{key}=[{path}]")
    with pytest.raises(InputError, match=r"cut\.safetensors cannot be read"):
        run_in_process(config, StateFolder.open(tmp_path / "state"), lambda _event: None)
    assert not (tmp_path / "state").exists()
    wrong = config_with(clip, tiny_folder, [], f"{key}=['high={style}']")
    with pytest.raises(InputError, match=r"style\.safetensors is for the high-noise expert.*one denoiser"):
        check_config(wrong)


def test_how_a_lora_is_written(tmp_path: Path) -> None:
    config = parse_config(
        {"base": {"loras": ["a.safetensors", "low=dir/b:c.safetensors:-0.5", {"path": "x", "strength": 2}]}}
    )
    assert [(use.path, use.strength, use.expert) for use in config.base.loras] == [
        ("a.safetensors", 1.0, "both"),
        ("dir/b:c.safetensors", -0.5, "low"),
        ("x", 2.0, "both"),
    ]
    path = tmp_path / "run.yaml"
    path.write_text(config_text(config))
    written = load_config(path)
    assert [use.path for use in written.base.loras] == [str(tmp_path / use.path) for use in config.base.loras]
    for values, said in (
        (["a.safetensors:9"], "base.loras.0.strength"),
        ([{"path": "a", "strenght": 1}], "did you mean `base.loras.0.strength`"),
        ([""], "FILE:STRENGTH"),
    ):
        with pytest.raises(ConfigError) as error:
            parse_config({"base": {"loras": values}})
        assert said in str(error.value)
