"""What a run shows is what its exported folder makes on a stock pipeline."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from numpy.typing import NDArray

from pipeline_lib import load_concept
from pipeline_lib.models.concept import SELF_CONDITIONING_FILE, TOKENS_FILE
from pipeline_lib.models.learned_tokens import LearnedTokens
from pipeline_lib.models.load import load_base
from pipeline_lib.personalize import run_in_process
from pipeline_lib.records import SampleRecord
from pipeline_lib.seeding import generator
from pipeline_lib.steps.generate import load_samples
from pipeline_lib.steps.run_folder import RunFolder
from pipeline_lib.steps.state import StateFolder
from tests.steps.tiny import tiny_config

GUIDANCE = 30.0
# Guidance and rates at which a few steps, and the words alone, change what a random base makes.
SETTINGS = (
    "samples.identity_strength=0.7",
    "samples.motion_strength=1.4",
    "samples.seeds=[3]",
    f"samples.guidance_scale={GUIDANCE}",
    "method.settings.prior_weight=0",
    "method.settings.identity_steps=20",
    "method.settings.motion_steps=20",
    "training.checkpoint_every=50",
    "method.settings.optimizer={learning_rate: 1.0, token_learning_rate: 10.0, max_gradient_norm: 10.0}",
)


def on_stock_pipeline(
    base: Path, concept: Path, sample: SampleRecord, motion: float | None = None
) -> NDArray[np.uint8]:
    """The sample once more, with nothing of ours but `load_concept`, and the trigger words in the prompt."""
    spec = load_base(str(base)).spec
    pipeline: Any = WanPipeline.from_pretrained(base)
    pipeline.set_progress_bar_config(disable=True)
    record = load_concept(pipeline, concept, motion=motion)
    prompt = record.wording.fill(sample.prompt.text)
    assert prompt == sample.filled_prompt
    rules = spec.frame_rules
    video = pipeline(
        prompt=prompt,
        negative_prompt=spec.negative_prompt,
        height=rules.height,
        width=rules.width,
        num_frames=rules.num_frames,
        num_inference_steps=spec.sampling_steps,
        guidance_scale=GUIDANCE,
        generator=generator(sample.seed, "sample"),
        output_type="np",
    ).frames[0]
    return np.rint(video * 255).astype(np.uint8)


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.mark.parametrize("words", ["word", "encoder_output", "encoder_input"])
def test_a_sample_is_what_the_concept_folder_makes(tmp_path: Path, tiny_folder: Path, clip: Path, words: str) -> None:
    config = tiny_config(tiny_folder, [clip], f"method.settings.special_tokens={words}", *SETTINGS)
    state = StateFolder.open(tmp_path / "state")
    result = run_in_process(config, state, lambda _event: None)
    record = RunFolder(state, result.run_id).record()
    assert record is not None
    (sample, shown), *_ = load_samples(state.store, record.steps["generate-personalised"].ref)
    (_, bare), *_ = load_samples(state.store, record.steps["generate-base"].ref)
    concept = Path(result.concept)
    again = on_stock_pipeline(tiny_folder, concept, sample)
    assert difference(again, shown) <= 1
    assert difference(bare, shown) > (2 if words == "encoder_input" else 8), "a test of nothing"
    assert difference(on_stock_pipeline(tiny_folder, concept, sample, motion=0.0), shown) > 1
    if words == "word":
        assert not (concept / TOKENS_FILE).exists()
        return
    assert "<extra_id_0> dog" in sample.filled_prompt
    assert "<extra_id_1>" in sample.filled_prompt
    unlearned = Path(shutil.copytree(concept, tmp_path / "unlearned"))
    tokens = LearnedTokens.load(unlearned / TOKENS_FILE)
    zero = {word: torch.zeros_like(vector) for word, vector in tokens.vectors.items()}
    LearnedTokens(zero, tokens.sentinels, tokens.mode).save(unlearned / TOKENS_FILE)
    assert difference(on_stock_pipeline(tiny_folder, unlearned, sample), shown) > (0 if words == "encoder_input" else 1)


def test_a_word_alone_is_a_concept_too(tmp_path: Path, tiny_folder: Path, clip: Path) -> None:
    own = "{steps: 20, batch: 2, word_optimizer: {learning_rate: 10.0, max_gradient_norm: 10.0}}"
    settings = ["method.name=textual_inversion", f"method.settings={own}", "training.preview_every=50"]
    shared = [setting for setting in SETTINGS if not setting.startswith("method.")]
    config = tiny_config(tiny_folder, [clip], *shared, *settings)
    state = StateFolder.open(tmp_path / "state")
    result = run_in_process(config, state, lambda _event: None)
    assert any("learned words alone" in note for note in result.notes), "strengths were asked for"
    record = RunFolder(state, result.run_id).record()
    assert record is not None
    (sample, shown), *_ = load_samples(state.store, record.steps["generate-personalised"].ref)
    assert sample.filled_prompt.startswith("a <extra_id_0> dog,")
    concept = Path(result.concept)
    assert difference(on_stock_pipeline(tiny_folder, concept, sample), shown) <= 1
    (concept / TOKENS_FILE).unlink()
    assert difference(on_stock_pipeline(tiny_folder, concept, sample), shown) > 2, "the word is what was learned"
    pipeline: Any = WanPipeline.from_pretrained(tiny_folder)
    pipeline.load_lora_weights(result.lora)
    plain = WanPipeline.from_pretrained(tiny_folder)
    video = {name: seen(pipe, sample.filled_prompt) for name, pipe in (("lora", pipeline), ("base", plain))}
    assert np.array_equal(video["lora"], video["base"]), "a stock loader gets the base"


def seen(pipeline: Any, prompt: str) -> NDArray[np.float32]:
    pipeline.set_progress_bar_config(disable=True)
    size = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2}
    return pipeline(prompt=prompt, **size, generator=generator(3, "sample"), output_type="np").frames[0]


def test_self_conditioning_goes_with_the_concept(tmp_path: Path, tiny_folder: Path, clip: Path) -> None:
    config = tiny_config(
        tiny_folder,
        [clip],
        "method.settings.self_conditioning=on",
        *SETTINGS,
        "method.settings.optimizer={learning_rate: 0.03, max_gradient_norm: 10.0}",
        "training.preview_every=10",
    )
    state = StateFolder.open(tmp_path / "state")
    result = run_in_process(config, state, lambda _event: None)
    record = RunFolder(state, result.run_id).record()
    assert record is not None
    (sample, shown), *_ = load_samples(state.store, record.steps["generate-personalised"].ref)
    concept = Path(result.concept)
    assert difference(on_stock_pipeline(tiny_folder, concept, sample), shown) <= 1
    (concept / SELF_CONDITIONING_FILE).unlink()
    assert difference(on_stock_pipeline(tiny_folder, concept, sample), shown) > 1
