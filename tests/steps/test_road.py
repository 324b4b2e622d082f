"""The whole road in-process, on a tiny base of the real classes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline_lib import load_concept, personalize
from pipeline_lib.errors import ConfigError, InputError, StopRequested
from pipeline_lib.media.write import read_video
from pipeline_lib.models.load import load_base
from pipeline_lib.models.triple import LoraTriple
from pipeline_lib.personalize import run_in_process
from pipeline_lib.records import ArtifactRef
from pipeline_lib.run_config import with_settings
from pipeline_lib.steps.run_folder import RunFolder, RunResult
from pipeline_lib.steps.state import StateFolder
from tests.steps.conftest import Finished
from tests.steps.tiny import IDENTITY_STEPS, MOTION_STEPS, STEPS, small_clip, small_images, tiny_config

Again = Callable[..., RunResult]


def made(result: RunResult) -> set[str]:
    return {name for name, seconds in result.seconds.items() if seconds > 0}


def digests(finished: Finished, result: RunResult) -> dict[str, str]:
    record = RunFolder(finished.state, result.run_id).record()
    assert record is not None
    return {name: step.ref.digest for name, step in record.steps.items() if name != "report"}


def test_a_run_makes_every_output(finished: Finished) -> None:
    result = finished.result
    assert tuple(result.seconds) == STEPS
    assert made(result) == set(STEPS)
    assert result.run_id.startswith("red-square-")
    assert Path(result.report).read_text().lstrip().lower().startswith("<!doctype html")
    samples = sorted(Path(result.run_dir).glob("samples/*/*.mp4"))
    assert [path.parent.name for path in samples] == ["base"] * 2 + ["personalised"] * 2
    assert read_video(samples[0]).shape == (5, 32, 32, 3)
    assert set(result.scores) == {"base", "personalised", "ceiling"}
    assert "mse" in result.scores["ceiling"]
    assert (Path(result.run_dir) / "contact_sheet.png").is_file()


def test_the_concept_loads_onto_a_stock_pipeline(finished: Finished, tiny_folder: Path) -> None:
    pipeline = load_base(str(tiny_folder)).pipeline()
    record = load_concept(pipeline, finished.result.concept)
    assert record.trigger.endswith("dog")
    assert [stage.name for stage in record.stages] == ["identity", "motion"]
    triple = LoraTriple.load(Path(finished.result.concept) / "triple.safetensors")
    assert any(
        bool(factors.residual is not None and factors.residual.abs().sum() > 0) for factors in triple.layers.values()
    )


def test_progress_is_told_step_by_step(finished: Finished) -> None:
    assert [event["step"] for event in finished.events if event["event"] == "step"] == list(STEPS)
    for stage, steps in (("train-identity", IDENTITY_STEPS), ("train-motion", MOTION_STEPS)):
        seen = [event for event in finished.events if event["event"] == "progress" and event["step"] == stage]
        assert [event["done"] for event in seen] == list(range(1, steps + 1))
        assert all(event["total"] == steps and event["metrics"]["loss"] > 0 for event in seen)


def test_previews_lie_in_the_run_folder_and_in_no_artifact(finished: Finished) -> None:
    previews = sorted(
        path.relative_to(finished.result.run_dir) for path in Path(finished.result.run_dir).glob("previews/*/*")
    )
    assert [str(path) for path in previews] == [
        f"previews/{stage}/{step:06d}.mp4" for stage in ("identity", "motion") for step in (2, 4)
    ]
    assert [event["path"] for event in finished.events if event["event"] == "preview"] == [
        str(Path(finished.result.run_dir) / path) for path in previews
    ]
    assert not list(finished.state.store.root.glob("artifacts/stage/*/previews"))


def test_previews_count_for_no_stage(finished: Finished, run_again: Again) -> None:
    result = run_again(with_settings(finished.config, ["training.preview_every=0", "samples.guidance_scale=1"]))
    assert made(result) == {"generate-base", "generate-personalised", "evaluate", "report"}
    assert not (Path(result.run_dir) / "previews").exists()
    asked = run_again(with_settings(finished.config, ["training.preview_every=4"]))
    assert not any(name.startswith("train-") for name in made(asked))
    assert any("previews are made only while a stage trains" in note for note in asked.notes)


def test_a_second_run_finds_everything(finished: Finished, run_again: Again) -> None:
    again = run_again()
    assert again.found
    assert made(again) == set()
    assert again.scores == finished.result.scores


def test_other_prompts_train_nothing(finished: Finished, run_again: Again) -> None:
    result = run_again(with_settings(finished.config, ['samples.prompts=["{subject} in snow"]']))
    assert made(result) == {"generate-base", "generate-personalised", "evaluate", "report"}
    assert result.run_id != finished.result.run_id


def test_base_samples_and_prior_are_shared_by_other_methods(finished: Finished, run_again: Again) -> None:
    settings = ["method.name=lora", "method.settings={steps: 2, batch: 2, rank: 2, prior_weight: 1.0, prior_clips: 2}"]
    result = run_again(with_settings(finished.config, settings))
    assert {"prepare", "caption", "generate-base"}.isdisjoint(made(result))
    assert [name for name in result.seconds if name.startswith("train-")] == ["train-lora"]


def test_what_changes_only_how_training_runs_finds_the_same(finished: Finished, run_again: Again) -> None:
    result = run_again(
        with_settings(finished.config, ["training.micro_batch=1", "training.gradient_checkpointing=true"])
    )
    assert result.run_id == finished.result.run_id
    assert result.found


def test_a_lost_or_damaged_artifact_is_made_again_with_the_same_bits(finished: Finished, run_again: Again) -> None:
    before = digests(finished, finished.result)
    record = RunFolder(finished.state, finished.result.run_id).record()
    assert record is not None

    def folder(step: str) -> Path:
        ref: ArtifactRef = record.steps[step].ref
        return finished.state.store.root / "artifacts" / ref.kind / ref.key

    shutil.rmtree(folder("encode"))
    damaged = folder("train-motion") / "triple.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    result = run_again()
    assert {"encode", "train-motion"} <= made(result)
    assert "train-identity" not in made(result)
    assert digests(finished, result) == before


@pytest.mark.parametrize("stop_at", [("train-identity", 3), ("train-motion", 1), ("prior", 1), ("generate-base", 0)])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bits(
    finished: Finished, tmp_path: Path, stop_at: tuple[str, int]
) -> None:
    step, done = stop_at
    seen: list[str] = []

    class Stop(BaseException):
        pass

    def stop(event: dict[str, object]) -> None:
        seen.append(str(event.get("step")))
        if event.get("step") == step and (event.get("done", 0) == done):
            raise Stop

    state = StateFolder.open(tmp_path / "state")
    with pytest.raises(Stop):
        run_in_process(finished.config, state, stop)
    result = run_in_process(finished.config, state, lambda _event: None)
    here = Finished(finished.config, state, result, [])
    assert digests(here, result) == digests(finished, finished.result)


def test_images_alone_teach_appearance_and_say_so(tmp_path: Path, tiny_folder: Path) -> None:
    config = tiny_config(tiny_folder, [small_images(tmp_path / "pictures")])
    result = run_in_process(config, StateFolder.open(tmp_path / "state"), lambda _event: None)
    assert [name for name in result.seconds if name.startswith("train-")] == ["train-identity"]
    assert any("only images" in note for note in result.notes)
    assert Path(result.lora).is_file()


def test_several_clips_and_images_are_one_concept(tmp_path: Path, tiny_folder: Path) -> None:
    folder = small_images(tmp_path / "drop", 2)
    small_clip(folder / "a.mp4")
    small_clip(folder / "b.mp4", start=10)
    config = tiny_config(
        tiny_folder, [folder], "captions=[{class_noun: dog, static: red, motion: slides}]", "method.settings.frames=0"
    )
    state = StateFolder.open(tmp_path / "state")
    result = run_in_process(config, state, lambda _event: None)
    record = RunFolder(state, result.run_id).record()
    assert record is not None
    assert record.steps["prepare"].figures["clips"] == 3
    assert record.steps["encode"].figures["frames"] == 8 + 8 + 2
    assert {"base", "personalised"} <= {row for row, cells in result.scores.items() if "mse_edit" in cells}
    assert "mse" in result.scores_reconstruction["ceiling"]


def test_three_lines_of_python(tmp_path: Path, tiny_folder: Path, clip: Path) -> None:
    settings = ["method.name=lora", "method.preset=demo", "method.settings={steps: 1, batch: 1, rank: 1}"]
    prompts = ['samples.prompts=["{subject}"]']
    more = ["samples.motion_strength=0.5"]
    result = personalize(
        clip, subject="dog", base=str(tiny_folder), settings=[*settings, *prompts, *more], state=tmp_path
    )
    assert any("motion_strength has no effect" in note for note in result.notes)
    assert load_concept(load_base(str(tiny_folder)).pipeline(), result.concept).method == "lora"


def test_learned_words_reach_the_samples(tmp_path: Path, tiny_folder: Path, clip: Path) -> None:
    config = tiny_config(
        tiny_folder, [clip], "method.settings.special_tokens=encoder_output", "training.preview_every=4"
    )
    result = run_in_process(config, StateFolder.open(tmp_path), lambda _event: None)
    assert (Path(result.concept) / "tokens.safetensors").is_file()
    store = StateFolder.open(tmp_path).store
    record = RunFolder(StateFolder.open(tmp_path), result.run_id).record()
    assert record is not None
    samples = json.loads((store.folder(record.steps["generate-personalised"].ref) / "samples.json").read_text())
    assert "<extra_id_0> dog" in samples[0]["filled_prompt"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("method.settings.rnk=1", "rank"),
        ("base.source=nowhere/at/all/x", "unknown base.source"),
        ("captions=[{class_noun: a}, {class_noun: b}]", "2 captions for 1 clips"),
        ("concept.subject=", "subject"),
        ("samples.prompts_file=/nowhere/p.txt", "p.txt"),
        ("concept.shot=9", "shot"),
        ("concept.inputs=[]", "nothing to learn from"),
    ],
)
def test_bad_settings_are_input_errors_that_name_the_thing(
    tmp_path: Path, finished: Finished, setting: str, said: str
) -> None:
    config = with_settings(finished.config, [setting])
    with pytest.raises(InputError, match=said):
        run_in_process(config, StateFolder.open(tmp_path), lambda _event: None)
    assert not list(tmp_path.glob("store/tmp/*/*"))


def test_a_stop_is_a_stop(tmp_path: Path, finished: Finished) -> None:
    from pipeline_lib.steps.caption import caption
    from pipeline_lib.steps.generate import generate_base
    from pipeline_lib.steps.prepare import prepare
    from pipeline_lib.steps.shelf import ModelShelf
    from pipeline_lib.steps.step import StepContext

    state = StateFolder.open(tmp_path)
    context = StepContext(finished.config, state.store, ModelShelf(state.locks), stop=lambda: True)
    captions = caption(context, prepare(context).ref).ref
    with pytest.raises(StopRequested):
        generate_base(context, captions)


def test_the_state_folder_must_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="state folder"):
        StateFolder.open(tmp_path / "file")


def test_no_cuda_is_said_plainly(finished: Finished, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(ConfigError, match=r"training\.device"):
        run_in_process(with_settings(finished.config, ["training.device=cuda:0"]), StateFolder.open(tmp_path), print)
