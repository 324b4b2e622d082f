"""Single steps, on the artifacts of one finished run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.errors import InputError, StopRequested
from pipeline_lib.media.clip import Clip
from pipeline_lib.models.wan import WanBase
from pipeline_lib.personalize import run_in_process
from pipeline_lib.processes.locks import device_lock
from pipeline_lib.records import Caption, StageSpec
from pipeline_lib.run_config import RunConfig, with_settings
from pipeline_lib.steps.caption import caption, class_noun, load_captions, make_captions
from pipeline_lib.steps.generate import planned_prompts
from pipeline_lib.steps.prepare import load_clips, prepare
from pipeline_lib.steps.prior import CLIPS_KIND, prior
from pipeline_lib.steps.run_folder import RunFolder, run_identity
from pipeline_lib.steps.shelf import ModelShelf
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.steps.step import StepContext, StepResult
from pipeline_lib.steps.train import train
from tests.captions.tiny_vlm import tiny_vlm
from tests.steps.conftest import Finished
from tests.steps.tiny import small_images, tiny_config


def done(finished: Finished) -> dict[str, StepResult]:
    record = RunFolder(finished.state, finished.result.run_id).record()
    assert record is not None
    return record.steps


def context_of(finished: Finished, config: RunConfig | None = None, **more: Any) -> StepContext:
    return StepContext(config or finished.config, finished.state.store, ModelShelf(finished.state.locks), **more)


LORA = ["method.name=lora", "method.settings={steps: 2, batch: 2, rank: 2, prior_weight: 1.0, prior_clips: 2}"]


@pytest.mark.parametrize(
    ("settings", "encoded_again"),
    [(["seed=5"], False), (["method.settings.token_drop=0.3"], True), (LORA, True), (["concept.name=rex"], False)],
)
def test_the_sampled_prior_is_shared(finished: Finished, settings: list[str], encoded_again: bool) -> None:
    events: list[dict[str, Any]] = []
    before = set(finished.state.store.root.glob(f"artifacts/{CLIPS_KIND}/*"))
    prior_of_the_run = done(finished)["prior"].ref
    result = prior(
        context_of(finished, with_settings(finished.config, settings), emit=events.append),
        done(finished)["caption"].ref,
    )
    assert len(before) == 1
    assert set(finished.state.store.root.glob(f"artifacts/{CLIPS_KIND}/*")) == before
    assert [event for event in events if event["event"] == "progress"] == []
    assert (result.ref.key != prior_of_the_run.key) == encoded_again


def stage(finished: Finished) -> tuple[StageSpec, dict[str, Any]]:
    record = RunFolder(finished.state, finished.result.run_id).record()
    assert record is not None
    assert record.plan is not None
    steps = record.steps
    inputs = {"data": steps["encode"].ref, "captions": steps["caption"].ref, "prior": steps["prior"].ref}
    return record.plan.stages[0], inputs


def test_training_loads_no_encoder(finished: Finished) -> None:
    spec, inputs = stage(finished)
    context = context_of(finished)
    base = context.base
    assert isinstance(base, WanBase)
    result = train(context, spec.model_copy(update={"steps": 3}), inputs)
    assert not result.found
    assert base.encoder_calls == 0
    assert {"vae", "text_encoder"}.isdisjoint(base._parts)


def test_a_preview_leaves_no_encoder_behind(finished: Finished, tmp_path: Path) -> None:
    spec, inputs = stage(finished)
    config = with_settings(finished.config, ["training.preview_every=2"])
    context = context_of(finished, config, previews=tmp_path)
    base = context.base
    assert isinstance(base, WanBase)
    train(context, spec.model_copy(update={"steps": 5}), inputs)
    assert sorted(path.name for path in tmp_path.glob("identity/*")) == ["000002.mp4", "000004.mp4"]
    assert base.encoder_calls > 0
    assert {"vae", "text_encoder"}.isdisjoint(base._parts)


def test_pictures_get_no_motion_phrase(finished: Finished, tmp_path: Path) -> None:
    config = with_settings(finished.config, [f"concept.inputs=[{small_images(tmp_path / 'pictures', 5)}]"])
    context = StepContext(config, StateFolder.open(tmp_path / "state").store, ModelShelf(tmp_path))
    (spoken,) = load_captions(context.store, caption(context, prepare(context).ref).ref)
    assert (spoken.motion, spoken.camera) == ("", "")


def test_what_the_captioner_notes_stays_with_the_captions(finished: Finished, tmp_path: Path) -> None:
    first, moved = tiny_vlm(tmp_path / "vlm"), tmp_path / "elsewhere"
    clips = done(finished)["prepare"].ref
    made = caption(context_of(finished, with_settings(finished.config, [f"concept.captioner={first}"])), clips)
    assert any("gave no field that can be read" in note for note in made.notes)
    first.rename(moved)
    config = with_settings(finished.config, [f"concept.captioner={moved}"])
    again = caption(context_of(finished, config), clips)
    assert (again.found, again.ref, again.notes) == (True, made.ref, made.notes)
    weights = moved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert not caption(context_of(finished, config), clips).found


def clips_of(finished: Finished) -> list[Clip]:
    return load_clips(finished.state.store, done(finished)["prepare"].ref)


@pytest.mark.parametrize(
    ("settings", "noun", "looks"),
    [
        (["concept.subject=plush bear with a bow"], "bear", "plush, with a bow, "),
        (["concept.subject=grey wolf pup", "concept.class_noun=wolf pup"], "wolf pup", "grey, "),
    ],
)
def test_the_class_is_the_head_noun_and_the_rest_is_appearance(
    finished: Finished, settings: list[str], noun: str, looks: str
) -> None:
    config = with_settings(finished.config, settings)
    (spoken,), _ = make_captions(config, clips_of(finished))
    assert spoken.class_noun == class_noun(config) == noun
    assert spoken.static.startswith(looks)


def test_the_reconstruction_goes_first_unless_the_person_brings_one(finished: Finished, tmp_path: Path) -> None:
    spoken = Caption(class_noun="dog", static="red")
    config = with_settings(finished.config, ['samples.prompts=["{subject} on ice"]'])
    (first, second), _ = planned_prompts(config, spoken)
    assert (first.kind, first.text) == ("reconstruction", "a {subject}, red")
    assert second.text == "{subject} on ice"
    own = tmp_path / "own.yaml"
    own.write_text('- "{subject} on ice"\n- {text: "a {subject}", kind: reconstruction}\n')
    prompts, _ = planned_prompts(with_settings(config, [f"samples.prompts_file={own}"]), spoken)
    assert [prompt.kind for prompt in prompts] == ["user", "reconstruction"]
    prompts, notes = planned_prompts(with_settings(config, ['samples.prompts=["a dog on ice"]']), spoken)
    assert prompts[1].text == "a {subject} on ice"
    assert len(notes) == 1


def test_a_prompt_without_the_subject_is_refused_at_once(finished: Finished, tmp_path: Path) -> None:
    config = with_settings(finished.config, ['samples.prompts=["a cat on ice"]'])
    with pytest.raises(InputError, match="where the subject goes"):
        run_in_process(config, StateFolder.open(tmp_path), lambda _event: None)
    assert not list(tmp_path.glob("runs/*"))


def test_waiting_for_another_process_is_told_and_ends_with_a_stop(finished: Finished, tmp_path: Path) -> None:
    state = StateFolder.open(tmp_path)
    held, free = threading.Event(), threading.Event()

    def make(folder: Path) -> None:
        (folder / "file").write_text("x")
        held.set()
        free.wait(60)

    other = threading.Thread(target=lambda: state.store.build("latents", "key", make))
    other.start()
    held.wait(60)
    events: list[dict[str, Any]] = []
    context = StepContext(
        finished.config, state.store, ModelShelf(state.locks), emit=events.append, stop=lambda: bool(events)
    )
    with pytest.raises(StopRequested, match="waiting for another process"):
        context.store.build("latents", "key", make)
    free.set()
    other.join()
    assert [event["event"] for event in events] == ["waiting"]


def test_two_state_folders_share_the_locks_of_the_machine(tmp_path: Path) -> None:
    one, two = (StateFolder.open(tmp_path / name) for name in ("one", "two"))
    with (
        device_lock("cuda:63", one.locks),
        pytest.raises(StopRequested),
        device_lock("cuda:63", two.locks, stop=lambda: True),
    ):
        pass


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "failed"), (KeyboardInterrupt, "stopped")])
def test_a_run_that_ends_early_says_so(
    tmp_path: Path, tiny_folder: Path, clip: Path, error: type[BaseException], status: str
) -> None:
    config, state = tiny_config(tiny_folder, [clip]), StateFolder.open(tmp_path)

    def fail(_event: dict[str, Any]) -> None:
        raise error("the reason")

    with pytest.raises(error):
        run_in_process(config, state, fail)
    record = RunFolder(state, run_identity(config)).record()
    assert record is not None
    assert (record.status, record.error) == (status, "the reason")


def test_only_what_changes_a_result_is_in_its_key(finished: Finished) -> None:
    def facts(*settings: str) -> dict[str, str]:
        return context_of(finished, with_settings(finished.config, settings)).base_facts()

    recompute = "training.gradient_checkpointing=true"
    assert facts("training.compile=true", "training.swapped_blocks=1", recompute) == facts()
    assert facts("training.storage=fp8", recompute) != facts()
