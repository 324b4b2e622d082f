"""What is trained beside the LoRA, on a stock pipeline: words at the encoder's input, self-conditioning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline
from safetensors import safe_open
from torch import Tensor

from pipeline_lib.errors import InputError
from pipeline_lib.models.adapter import Adapter
from pipeline_lib.models.concept import (
    SELF_CONDITIONING_FILE,
    TOKENS_FILE,
    Companions,
    load_concept,
    read_concept,
    save_concept,
    unload_concept,
)
from pipeline_lib.models.learned_tokens import LearnedTokens
from pipeline_lib.models.self_conditioning import PatchProjection, SelfConditioning
from pipeline_lib.models.triple import LoraTriple
from pipeline_lib.models.wan import WanBase
from pipeline_lib.storage.tensors import save_tensors
from tests.models.factors import random_triple
from tests.models.test_concept import CALL, PROMPT, SENTINEL, latents, record, stock

STEPS = {**CALL, "num_inference_steps": 4}


def random(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def triple(base: WanBase) -> LoraTriple:
    return random_triple(base.transformer, base.spec.lora_targets)


@pytest.fixture
def words() -> LearnedTokens:
    return LearnedTokens({"v": random(24)}, {"v": SENTINEL}, "encoder_input")


@pytest.fixture
def projection() -> PatchProjection:
    return PatchProjection("patch_embedding", 0.3 * random(24, 16, 1, 2, 2))


def sampled(pipeline: WanPipeline, seed: int = 3, **changes: Any) -> Tensor:
    call = {**STEPS, **changes}
    frames = pipeline(call.pop("prompt", PROMPT), generator=torch.Generator().manual_seed(seed), **call).frames
    assert isinstance(frames, Tensor)
    return frames


def test_a_word_at_the_input_mixes_with_its_neighbours_as_in_training(
    tiny_folder: Path, base: WanBase, triple: LoraTriple, words: LearnedTokens, tmp_path: Path
) -> None:
    folder = save_concept(tmp_path / "concept", record(), triple, words)
    pipeline = stock(tiny_folder)
    prompts = [PROMPT, "a cat"]
    before, _ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False, max_sequence_length=512)
    load_concept(pipeline, folder)
    after, _ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False, max_sequence_length=512)
    changed = (after != before).any(dim=-1)
    assert int(changed[0].sum()) > 1, "the encoder has mixed it into other tokens"
    assert not bool(changed[1].any())
    trained = base.encode_text(prompts, words={SENTINEL: words.vectors["v"]})
    torch.testing.assert_close(after, trained.tensors["text"], atol=1e-5, rtol=0)
    unload_concept(pipeline, "my dog 1.5")
    restored, _ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False, max_sequence_length=512)
    assert torch.equal(restored, before)


def test_the_stock_path_makes_the_training_paths_latents(
    tiny_folder: Path, base: WanBase, triple: LoraTriple, words: LearnedTokens, tmp_path: Path
) -> None:
    trained = LoraTriple(triple.layers, triple.basis, triple.rank)
    folder = save_concept(tmp_path / "concept", record(), trained, words)
    pipeline = stock(tiny_folder)
    load_concept(pipeline, folder)
    adapter = Adapter.from_triple(base.transformer, trained)
    adapter.set_strengths(0.8, 1.0)
    live = base.pipeline()
    live.set_progress_bar_config(disable=True)
    text = base.encode_text([PROMPT], words={SENTINEL: words.vectors["v"]}).tensors["text"]
    empty = base.encode_text([""]).tensors["text"]
    by_training = sampled(live, prompt=None, prompt_embeds=text, negative_prompt_embeds=empty)
    torch.testing.assert_close(sampled(pipeline), by_training, atol=1e-4, rtol=0)


def test_the_mode_is_in_the_header_of_input_words_alone(words: LearnedTokens, tmp_path: Path) -> None:
    path = tmp_path / TOKENS_FILE
    words.save(path)
    assert LearnedTokens.load(path).mode == "encoder_input"
    LearnedTokens(words.vectors, words.sentinels).save(path)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"v": SENTINEL}, "files of output words keep their bytes"
    assert LearnedTokens.load(path).mode == "encoder_output"
    save_tensors(path, dict(words.vectors), {"v": SENTINEL, "special_tokens": "elsewhere"})
    with pytest.raises(InputError, match="unknown kind"):
        LearnedTokens.load(path)


@torch.no_grad()
def by_hand(base: WanBase, live: SelfConditioning, guidance: float, steps: int = 4, seed: int = 3) -> Tensor:
    """Sampling written out: the conditional estimate of a step goes into both branches of the next."""
    scheduler: Any = base.pipeline().scheduler
    scheduler.set_timesteps(steps)
    text, empty = base.encode_text([PROMPT]), base.encode_text([""])
    noisy = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(seed))
    estimate = None
    for timestep in scheduler.timesteps:
        with live.given(estimate):
            conditional = base.velocity(noisy, timestep[None] / 1000, text)
            unconditional = base.velocity(noisy, timestep[None] / 1000, empty)
        estimate = noisy - timestep / 1000 * conditional
        velocity = unconditional + guidance * (conditional - unconditional) if guidance > 1 else conditional
        noisy = scheduler.step(velocity, timestep, noisy, return_dict=False)[0]
    return noisy


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_each_step_sees_the_conditional_estimate_of_the_one_before(
    tiny_folder: Path, base: WanBase, projection: PatchProjection, guidance: float
) -> None:
    pipeline = stock(tiny_folder)
    plain = sampled(pipeline, guidance_scale=guidance)
    attached = projection.attach(pipeline)
    first = sampled(pipeline, guidance_scale=guidance)
    expected = by_hand(base, SelfConditioning(base.transformer, projection), guidance)
    torch.testing.assert_close(first, expected, atol=1e-4, rtol=0)
    assert not torch.allclose(first, plain, atol=1e-2), "a test of nothing"
    assert torch.equal(sampled(pipeline, guidance_scale=guidance), first), "nothing is left over from a video"
    attached.remove()
    assert torch.equal(sampled(pipeline, guidance_scale=guidance), plain)


def test_a_video_that_was_broken_off_leaves_nothing_for_the_next(
    tiny_folder: Path, projection: PatchProjection
) -> None:
    pipeline = stock(tiny_folder)
    projection.attach(pipeline)
    expected = sampled(pipeline)
    fewer = sampled(pipeline, num_inference_steps=2, seed=9)

    def stop(*_step: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    for broken in ({"seed": 8}, {"num_inference_steps": 40, "seed": 8}, {"seed": 3}):
        with pytest.raises(KeyboardInterrupt):
            sampled(pipeline, callback_on_step_end=stop, **broken)
        assert torch.equal(sampled(pipeline), expected)
        assert torch.equal(sampled(pipeline, num_inference_steps=2, seed=9), fewer)


def test_one_step_sees_no_estimate(tiny_folder: Path, projection: PatchProjection) -> None:
    pipeline = stock(tiny_folder)
    plain = sampled(pipeline, num_inference_steps=1)
    projection.attach(pipeline)
    for _ in range(2):
        assert torch.equal(sampled(pipeline, num_inference_steps=1), plain)


def test_a_concept_carries_it_and_the_bare_lora_does_without(
    tiny_folder: Path, triple: LoraTriple, words: LearnedTokens, projection: PatchProjection, tmp_path: Path
) -> None:
    folder = save_concept(tmp_path / "concept", record(), triple, words, projection)
    concept = read_concept(folder)
    assert concept.self_conditioning is not None
    assert torch.equal(concept.self_conditioning.weight, projection.weight)
    without = save_concept(tmp_path / "without", record(), triple, words)
    assert not (without / SELF_CONDITIONING_FILE).exists()
    whole, other, bare = stock(tiny_folder), stock(tiny_folder), stock(tiny_folder)
    plain = latents(whole)
    load_concept(whole, folder)
    load_concept(other, without)
    seen = sampled(whole)
    assert not torch.allclose(seen, sampled(other), atol=1e-2)
    bare.load_lora_weights(folder / "lora.safetensors")
    assert (folder / "lora.safetensors").read_bytes() == (without / "lora.safetensors").read_bytes()
    load_concept(whole, folder)  # replaces the one of the same name, self-conditioning and all
    assert torch.equal(sampled(whole), seen)
    unload_concept(whole, "my dog 1.5")
    assert torch.equal(latents(whole), plain)


def test_at_no_strength_the_look_leaves_no_estimate(
    tiny_folder: Path, triple: LoraTriple, projection: PatchProjection, tmp_path: Path
) -> None:
    folder = save_concept(tmp_path / "concept", record(), triple, None, projection)
    pipeline = stock(tiny_folder)
    plain = sampled(pipeline)
    load_concept(pipeline, folder, identity=0.0, motion=0.0)
    assert torch.equal(sampled(pipeline), plain)


def test_what_does_not_fit_is_refused_and_nothing_is_left(
    tiny_folder: Path, triple: LoraTriple, words: LearnedTokens, tmp_path: Path
) -> None:
    pipeline = stock(tiny_folder)
    plain = sampled(pipeline)
    for index, wrong in enumerate(
        (
            PatchProjection("patch_embedding", random(24, 8, 1, 2, 2)),
            PatchProjection("proj_in", random(24, 16, 1, 2, 2)),
        )
    ):
        folder = save_concept(tmp_path / str(index), record(), triple, words, wrong)
        with pytest.raises(InputError, match=r"self-conditioning"):
            load_concept(pipeline, folder)
        assert torch.equal(sampled(pipeline), plain)


def test_damaged_files_are_named(projection: PatchProjection, tmp_path: Path) -> None:
    path = tmp_path / SELF_CONDITIONING_FILE
    projection.save(path)
    assert Companions.load(tmp_path).self_conditioning is not None
    assert Companions.load(tmp_path / "absent") == Companions()
    for tensors in ({}, {"a.weight": random(3)}, {"a.weight": random(1, 1, 1, 1, 1), "b.weight": random(1)}):
        save_tensors(path, tensors)
        with pytest.raises(InputError, match="no patch projection"):
            PatchProjection.load(path)


def test_a_pipeline_with_a_concept_can_go(tiny_folder: Path, projection: PatchProjection) -> None:
    import gc
    import weakref

    pipeline = stock(tiny_folder)
    projection.attach(pipeline)
    sampled(pipeline)
    gone = weakref.ref(pipeline)
    del pipeline
    gc.collect()
    assert gone() is None
