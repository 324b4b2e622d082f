"""`generate`, `export`, `preview`, `doctor` and `bases` on a concept of the tiny base, in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipeline_lib.generation.sample import SamplingSettings, generate
from pipeline_lib.media.write import write_video
from pipeline_lib.models.concept import load_concept, read_concept, save_concept
from pipeline_lib.models.families import FAMILIES
from pipeline_lib.models.learned_tokens import LearnedTokens
from pipeline_lib.models.load import load_base
from pipeline_lib.models.lora_import import import_lora
from pipeline_lib.models.triple import LayerFactors, LoraTriple
from pipeline_lib.records import Caption, ConceptRecord
from pipeline_lib.run_config import config_text, load_config
from pipeline_lib.steps.concepts import find_concept
from pipeline_lib.steps.encode import encoding_settings
from pipeline_lib.steps.shelf import ModelShelf
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.steps.step import StepContext
from pipeline_lib.training.encode import encode_training_data
from tasks.use_concept import concept_config
from tests.cli.test_bad_input import Ended, check_refused, command, state
from tests.models.factors import random_triple
from tests.steps.tiny import IDENTITY_STEPS, MOTION_STEPS, small_clip, tiny_config

__all__ = ["state"]

PHRASE = "running"


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's arithmetic as this process's own: bits are compared."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def concept(tiny_folder: Path, tmp_path: Path) -> Path:
    """A concept with learned words and no motion of its own."""
    base = load_base(str(tiny_folder))
    (_, denoiser), *_ = base.experts()
    drawn = random_triple(denoiser, base.spec.lora_targets)
    layers = {path: LayerFactors(factors.basis, factors.coefficients) for path, factors in drawn.layers.items()}
    record = ConceptRecord(
        name="rex",
        method="lora",
        base=str(tiny_folder),
        base_digest="0",
        family="wan",
        trigger="<extra_id_0> dog",
        motion_trigger="<extra_id_1>",
        class_noun="dog",
        captions=(Caption(class_noun="dog", motion=PHRASE),),
        stages=(),
        rank=drawn.rank,
        seed=0,
        data_digest="1",
    )
    vectors = {"subject": torch.full((24,), 3.0), "motion": torch.full((24,), -3.0)}
    tokens = LearnedTokens(vectors, {"subject": "<extra_id_0>", "motion": "<extra_id_1>"})
    return save_concept(tmp_path / "rex", record, LoraTriple(layers, drawn.basis, drawn.rank), tokens)


def concept_base(concept: Path) -> str:
    return read_concept(concept).record.base


def generated(concept: Path, *arguments: str) -> Ended:
    result = command("generate", str(concept), *arguments, "--json")
    assert result.code == 0, result.errors
    return result


def test_prompts_are_positional_and_said_in_the_concepts_own_words(state: Path, concept: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.txt"
    more.write_text("a dog in snow\n")
    result = generated(concept, "a {subject} running", "a <extra_id_0> {subject}", "--prompts", str(more))
    files = json.loads(result.output)["files"]
    assert [Path(file).name for file in files] == ["rex-0-0.mp4", "rex-1-0.mp4", "rex-2-0.mp4"]
    assert "is read as 'a {subject} in snow'" in " ".join(result.errors.split())
    first = Path(files[0]).read_bytes()
    again = json.loads(generated(concept, "a {subject} in snow").output)["files"]
    assert [Path(file).name for file in again] == ["rex-0-0-2.mp4"]
    assert Path(files[0]).read_bytes() == first  # nothing made before is overwritten
    base = load_base(concept_base(concept))
    pipeline = base.pipeline()
    load_concept(pipeline, concept)
    settings = SamplingSettings.of(base.spec)
    texts = ["a <extra_id_0> dog <extra_id_1> running", "a <extra_id_0> <extra_id_0> dog, <extra_id_1>"]
    for text, file in zip(texts, files, strict=False):
        frames = generate(base, text, 0, settings, pipeline=pipeline)
        same = write_video(frames, tmp_path / "same.mp4", settings.frames_per_second)
        assert same.read_bytes() == Path(file).read_bytes(), text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to generate"),
        (["a cat in snow"], "where the subject goes"),
        (["a {subject} and {other}"], "unknown placeholder"),
        (["a {subject}", "--prompts", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_bad_prompts(state: Path, concept: Path, arguments: list[str], said: str) -> None:
    check_refused(command("generate", str(concept), *arguments), state, said)


def test_a_strength_without_effect_is_told(state: Path, concept: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "a.safetensors")]
    told = " ".join(command("export", str(concept), "--motion", "0.5", *out).errors.split())
    assert "--motion has no effect: lora learned no motion of its own here; --identity scales all" in told
    assert "all that was learned but the words" in told
    assert "no effect" not in command("export", str(concept), "--out", str(tmp_path / "b.safetensors")).errors


def test_a_concept_of_a_hub_id_is_used_at_its_revision(state: Path, concept: Path) -> None:
    kept = read_concept(concept)
    record = kept.record.model_copy(update={"base": "somebody/base", "base_revision": "v2"})
    save_concept(concept, record, kept.triple, kept.tokens)
    found = find_concept(str(concept), StateFolder.open())
    assert (used := concept_config(found).base).source == "somebody/base" and used.revision == "v2"
    assert concept_config(found, "/a/copy").base.revision == "", "of another source"


@pytest.mark.parametrize("form", ["diffusers", "comfyui", "peft", "concept"])
def test_every_format_holds_the_strengths_that_were_asked_for(
    form: str, state: Path, tiny_folder: Path, concept: Path, tmp_path: Path
) -> None:
    (_, denoiser), *_ = load_base(str(tiny_folder)).experts()
    kept = read_concept(concept)
    moving = random_triple(denoiser, load_base(str(tiny_folder)).spec.lora_targets)
    record = kept.record.model_copy(update={"base_revision": "v2"})
    save_concept(concept, record, moving, kept.tokens)
    out = tmp_path / ("made.safetensors" if form in ("diffusers", "comfyui") else "made")
    strengths = ["--identity", "0.9", "--motion", "0.7"]
    result = command("export", str(concept), "--format", form, *strengths, "--out", str(out), "--json")
    assert result.code == 0, result.errors
    assert json.loads(result.output)["path"] == str(out)
    file = {"peft": out / "adapter_model.safetensors", "concept": out / "lora.safetensors"}.get(form, out)
    read = import_lora(file, "wan", denoiser)
    expected = moving.merged(0.9, 0.7)
    assert set(read.layers) == set(expected)
    for path, (down, up) in expected.items():
        torch.testing.assert_close(read.layers[path][1] @ read.layers[path][0], up @ down, atol=1e-6, rtol=1e-6)
    if form != "peft":
        told = read.provenance
        assert (told["identity_strength"], told["motion_strength"], told["base_revision"]) == ("0.9", "0.7", "v2")
        assert (told["method"], told["base"], told["trigger"]) == ("lora", str(tiny_folder), "<extra_id_0> dog")


def test_preview_shows_what_training_reads(state: Path, tiny_folder: Path, tmp_path: Path) -> None:
    clip = small_clip(tmp_path / "clip.mp4")
    settings = ["method.settings.special_tokens=encoder_output", "method.settings.frames=3", "method.settings.crops=2"]
    path = tmp_path / "run.yaml"
    path.write_text(config_text(tiny_config(tiny_folder, [clip], *settings)))
    result = command("preview", str(path), "--out", str(tmp_path / "sheet.png"), "--json")
    assert result.code == 0, result.errors
    (shown,) = json.loads(result.output)["clips"]
    config = load_config(path)
    context = StepContext(config, StateFolder.open().store, ModelShelf(tmp_path))
    from pipeline_lib.steps.caption import caption, load_captions
    from pipeline_lib.steps.prepare import load_clips, prepare

    clips = prepare(context).ref
    spoken = load_captions(context.store, caption(context, clips).ref)
    frames = load_clips(context.store, clips)
    data = encode_training_data(context.base, frames, spoken, encoding_settings(context, "dog"))
    assert (shown["prompts"]["frames"], shown["prompts"]["clips"]) == (
        *data.frame_text.prompts,
        *data.clip_text.prompts,
    )
    assert "<extra_id_1>" in shown["prompts"]["clips"]
    assert (len(shown["trained_frames"]), len(shown["held_out_frames"])) == (3, len(data.held_out_frames))
    assert (shown["crops"], len(data.frames)) == (6, 9)
    assert len(shown["window_starts"]) == len(data.windows)
    assert shown["trained_frames"][0] == 0


def test_doctor_counts(state: Path, tiny_folder: Path, tmp_path: Path) -> None:
    config = tiny_config(tiny_folder, [small_clip(tmp_path / "clip.mp4")])
    path = tmp_path / "run.yaml"
    path.write_text(config_text(config))
    result = command("doctor", str(path), "--json")
    assert result.code == 0, result.errors
    facts = json.loads(result.output)["config"]
    base = load_base(str(tiny_folder))
    (_, denoiser), *_ = base.experts()
    weights = sum(value.nbytes for value in (*denoiser.parameters(), *denoiser.buffers()))
    assert facts["weights, transformer GB"] == float(f"{weights / 1e9:.3g}")
    drawn = random_triple(denoiser, base.spec.lora_targets)
    sides = sum(f.basis.shape[0] + f.coefficients.shape[1] for f in drawn.layers.values())
    assert facts["adapter with moments GB"] == float(f"{sides * 2 * 16 / 1e9:.3g}")
    assert facts["training steps"] == IDENTITY_STEPS + MOTION_STEPS
    assert facts["forwards, prior"] == 2 * 3 * 2
    assert facts["forwards, train-identity"] == IDENTITY_STEPS * 2 * 2
    assert facts["forwards, samples"] == 2 * 2 * 3 * 2
    assert facts["verdict"].startswith("fits")


def test_doctor_fetches_nothing(state: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    clip = small_clip(tmp_path / "clip.mp4")
    path.write_text(f"concept: {{inputs: [{clip}], subject: dog}}\nbase: {{source: nobody/nothing}}\n")
    result = command("doctor", str(path), "--json")
    assert result.code == 0, result.errors
    assert "hub id" in json.loads(result.output)["config"]["base"]


def test_bases_tell_their_family(state: Path) -> None:
    pocket, _ = json.loads(command("bases", "--json").output)["bases"]
    assert (pocket["family"], pocket["licence"]) == ("wan", "Apache-2.0")


def test_bases_tell_every_familys_licence_and_sizes(state: Path) -> None:
    told = command("bases").output
    families = {family["family"]: family for family in json.loads(command("bases", "--json").output)["families"]}
    assert set(families) == set(FAMILIES)
    for name, facts in families.items():
        assert "multiples of" in facts["sizes"] and "frames" in facts["sizes"] and "fps" in facts["sizes"]
        for words in (f"{name}: {facts['licence']}", facts["sizes"], *facts["examples"]):
            assert words in told
