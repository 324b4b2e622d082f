"""LTX-Video: our verbs against the stock pipeline over the same folder, fp32, CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import LTXPipeline
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift
from torch import Tensor

from pipeline_lib import seeding
from pipeline_lib.errors import InputError
from pipeline_lib.generation.sample import SamplingSettings, generate
from pipeline_lib.models.diffusers_base import HIDDEN_SENTINEL
from pipeline_lib.models.learned_tokens import LearnedTokens
from pipeline_lib.models.load import load_base
from pipeline_lib.models.ltx import TEXT_ROWS, LTXBase
from pipeline_lib.models.tiny_ltx import tiny_ltx

PROMPT = "a red dog running on the beach"
PROMPTS = ["a red  dog &amp; a cat on the <extra_id_0> beach", "", "a dog, " * 60]
FPS = 8.0
GRID: dict[str, Any] = {"height": 64, "width": 96, "num_frames": 17, "frame_rate": FPS, "num_inference_steps": 3}
NOISY_DECODER = {"as 0.9.0": False, "as 0.9.1": True}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    return {noisy: tiny_ltx(tmp_path_factory.mktemp("ltx"), noisy_decoder=noisy) for noisy in (False, True)}


@pytest.fixture(scope="module")
def folder(folders: dict[bool, Path]) -> Path:
    return folders[False]


@pytest.fixture(scope="module")
def base(folder: Path) -> LTXBase:
    return loaded(folder)


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> LTXPipeline:
    return stock(folder)


def loaded(folder: Path, dtype: torch.dtype = torch.float32) -> LTXBase:
    base = load_base(str(folder), dtype=dtype)
    assert isinstance(base, LTXBase)
    return base


def stock(folder: Path) -> LTXPipeline:
    pipeline = LTXPipeline.from_pretrained(folder)
    assert isinstance(pipeline, LTXPipeline)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("frames", [1, 9, 17])
@pytest.mark.parametrize("noisy", NOISY_DECODER.values(), ids=NOISY_DECODER)
@torch.no_grad()
def test_latents(folders: dict[bool, Path], noisy: bool, frames: int) -> None:
    base, vae = loaded(folders[noisy]), stock(folders[noisy]).vae
    pixels = draw(2, 3, frames, 32, 64).tanh()
    ours = base.encode_video(pixels)
    assert ours.shape == (2, 8, 1 + (frames - 1) // 8, 1, 2) and ours.dtype == torch.float32
    mode = vae.encode(pixels).latent_dist.mode()
    statistics = vae.latents_mean, vae.latents_std, vae.config.scaling_factor
    normalized = LTXPipeline._normalize_latents(mode, *statistics)
    torch.testing.assert_close(ours, normalized, atol=1e-5, rtol=0)
    assert (normalized - mode).abs().max() > 0.1
    decoded = base.decode_video(ours)
    assert decoded.shape == pixels.shape
    for row in range(2):
        torch.manual_seed(seeding.derived_seed(0, "decode"))
        raw = LTXPipeline._denormalize_latents(ours[row : row + 1], *statistics)
        expected = vae.decode(raw, torch.zeros(1) if noisy else None, return_dict=False)[0]
        torch.testing.assert_close(decoded[row : row + 1], expected, atol=1e-5, rtol=0)
    assert torch.equal(decoded, base.decode_video(ours))


@torch.no_grad()
def test_text_embeddings(base: LTXBase, pipeline: LTXPipeline) -> None:
    expected, mask, negative, negative_mask = pipeline.encode_prompt(PROMPTS, negative_prompt=[""] * 3)
    ours = base.encode_text(PROMPTS).tensors
    assert torch.equal(ours["length"], mask.sum(1)) and ours["length"][2] == TEXT_ROWS
    torch.testing.assert_close(ours["text"], expected * mask[..., None], atol=1e-5, rtol=0)
    empty = base.encode_text([""]).tensors["text"]
    torch.testing.assert_close(empty, (negative * negative_mask[..., None])[:1], atol=1e-5, rtol=0)


def first_step(pipeline: LTXPipeline, noise: Tensor, **changes: Any) -> tuple[Tensor, Tensor]:
    """Timestep and packed latents after the stock call's first step."""
    seen: dict[str, Tensor] = {}

    def watch(_pipeline: Any, index: int, timestep: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if index == 0:
            seen.update(timestep=timestep, latents=tensors["latents"].clone())
        return {}

    call = {**GRID, "guidance_scale": 3.0, "output_type": "latent", **changes}
    pipeline(PROMPTS[0], latents=packed(noise), callback_on_step_end=watch, **call)
    return seen["timestep"], seen["latents"]


def packed(latents: Tensor) -> Tensor:
    tokens: Tensor = LTXPipeline._pack_latents(latents, 1, 1)
    return tokens


@torch.no_grad()
def test_one_denoising_step(base: LTXBase, pipeline: LTXPipeline) -> None:
    """The stock call's first step, against the scheduler fed with our guided velocity; text padded or not."""
    noise = draw(1, 8, 3, 2, 3)
    timestep, expected = first_step(pipeline, noise)
    text = base.encode_text([PROMPTS[0], ""])
    sigma = timestep.expand(2) / 1000
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    for conditioning in (text, base.compact(text)):
        with_prompt, without = base.velocity(noise.repeat(2, 1, 1, 1, 1), sigma, conditioning).chunk(2)
        guided = without + 3.0 * (with_prompt - without)
        shift = calculate_shift(18, *(pipeline.scheduler.config[name] for name in LINE))
        scheduler.set_timesteps(sigmas=[1.0, 2 / 3, 1 / 3], mu=shift)
        ours = scheduler.step(packed(guided), scheduler.timesteps[0], packed(noise), return_dict=False)[0]
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    assert (first_step(pipeline, noise, frame_rate=25)[1] - expected).abs().max() > 1e-3  # the rate has a part in it


LINE = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")


@pytest.mark.parametrize("noisy", NOISY_DECODER.values(), ids=NOISY_DECODER)
def test_a_full_generation_is_the_stock_one(folders: dict[bool, Path], noisy: bool) -> None:
    base = loaded(folders[noisy])
    settings = SamplingSettings.of(base.spec)
    own, theirs = base.pipeline(), stock(folders[noisy])  # loading has its own draws
    torch.manual_seed(seeding.derived_seed(11, "sample"))
    call = {**GRID, "height": 32, "width": 32, "num_frames": 9, "guidance_scale": settings.guidance_scale}
    draws = seeding.generator(11, "sample")
    video = theirs(PROMPTS[0], negative_prompt="", generator=draws, output_type="np", **call).frames[0]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    ours = generate(base, PROMPTS[0], 11, settings, pipeline=own)
    assert ours.shape == (9, 32, 32, 3)
    assert (ours == (video * 255).round()).all()
    assert torch.equal(torch.get_rng_state(), state)


def test_velocity_takes_each_rows_own_sigma_and_text(base: LTXBase) -> None:
    noisy, sigma = draw(3, 8, 2, 2, 3), torch.tensor([0.1, 0.5, 0.9])
    text = base.encode_text(PROMPTS)
    together = base.velocity(noisy, sigma, text)
    for row in range(3):
        alone = base.velocity(noisy[row : row + 1], sigma[row : row + 1], base.compact(text.take([row])))
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_mask_that_masks_nothing_is_dropped(base: LTXBase) -> None:
    noisy, sigma = draw(2, 8, 2, 2, 3), torch.tensor([0.3, 0.7])
    padded = base.encode_text(["a red dog", "a red cat"])
    short = base.compact(padded)
    assert short.tensors["text"].shape[1] == 4
    assert base._text_mask(short.tensors["length"], 4) is None
    assert base._text_mask(padded.tensors["length"], TEXT_ROWS) is not None
    torch.testing.assert_close(
        base.velocity(noisy, sigma, short), base.velocity(noisy, sigma, padded), atol=1e-6, rtol=0
    )
    full = base.encode_text(["a dog, " * 60] * 2)
    expected = base.transformer(
        hidden_states=packed(noisy),
        encoder_hidden_states=full.tensors["text"],
        timestep=sigma * 1000,
        encoder_attention_mask=torch.ones(2, TEXT_ROWS, dtype=torch.bool),
        num_frames=2,
        height=2,
        width=3,
        rope_interpolation_scale=(8 / FPS, 32, 32),
        return_dict=False,
    )[0]
    torch.testing.assert_close(packed(base.velocity(noisy, sigma, full)), expected, atol=1e-6, rtol=0)


def test_spans_cover_the_words(base: LTXBase) -> None:
    for prompt in (PROMPT, "  a   dog &amp; cat ", "a <extra_id_0> dog cat, 日本 dog"):
        spans = base.token_spans(prompt)
        pieces = [prompt[start:stop] for start, stop in spans]
        assert set(prompt.split()) & set(pieces) >= {"a", "dog"}
        assert [start for start, _ in spans] == sorted(start for start, _ in spans)
        length = int(base.encode_text([prompt]).tensors["length"][0])
        assert len(spans) == len(base.token_embeddings(prompt)) == length - 1
    assert base.token_spans("") == [] and base.token_embeddings("").shape == (0, 24)
    assert [PROMPT[start:stop] for start, stop in base.token_spans(PROMPT)] == PROMPT.split()
    assert len(base.token_spans("a dog, " * 60)) == TEXT_ROWS - 1


@torch.no_grad()
def encoded(pipeline: LTXPipeline, prompt: str, position: int, word: str) -> Tensor:
    """The stock encoder's rows of a prompt with one token changed, all 128 of them read."""
    tokenizer: Any = pipeline.tokenizer
    tokens = tokenizer(prompt, padding="max_length", max_length=TEXT_ROWS, return_tensors="pt")
    ids = tokens.input_ids.clone()
    ids[0, position] = tokenizer.convert_tokens_to_ids(word)
    rows: Tensor = pipeline.text_encoder(ids)[0] * tokens.attention_mask[..., None]
    return rows


def test_hidden_tokens_keep_positions(base: LTXBase, pipeline: LTXPipeline) -> None:
    hidden = base.encode_text([PROMPT, PROMPT], hidden=[[2], []]).tensors["text"]
    expected = encoded(pipeline, PROMPT, 2, base.sentinel(HIDDEN_SENTINEL))
    torch.testing.assert_close(hidden[:1], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden[1:], base.encode_text([PROMPT]).tensors["text"], atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="extra_id_999"):
        base.sentinel(999)


def test_learned_rows(base: LTXBase, pipeline: LTXPipeline) -> None:
    """Put into our conditioning, or into a live stock encoder: the same text; and they get gradients."""
    said = "a <extra_id_0> dog"
    vector = draw(24).requires_grad_()
    text = base.compact(base.encode_text([said, "a cat"]))
    position = base.token_spans(said).index((2, 14))
    replaced = base.replace_rows(text, [[position], []], vector)
    attached = LearnedTokens({"v": vector.detach()}, {"v": "<extra_id_0>"}).attach(
        pipeline.text_encoder, pipeline.tokenizer
    )
    expected, mask, _, _ = pipeline.encode_prompt(said, do_classifier_free_guidance=False)
    attached.remove()
    torch.testing.assert_close(
        replaced.tensors["text"][:1],
        (expected * mask[..., None])[:, : text.tensors["text"].shape[1]],
        atol=1e-5,
        rtol=0,
    )
    velocity = base.velocity(draw(2, 8, 2, 1, 1), torch.tensor([0.5, 0.5]), replaced)
    (gradient,) = torch.autograd.grad(velocity.square().mean(), vector)
    assert torch.isfinite(gradient).all() and gradient.norm() > 0


def test_words_at_the_encoders_input(base: LTXBase, pipeline: LTXPipeline) -> None:
    said, vector = "a <extra_id_0> on", base.token_embeddings("dog")[0].requires_grad_()
    text = base.encode_text([said], words={"<extra_id_0>": vector}).tensors["text"]
    expected = encoded(pipeline, said, base.token_spans(said).index((2, 14)), "▁dog")
    torch.testing.assert_close(text, expected, atol=1e-5, rtol=0)
    (gradient,) = torch.autograd.grad(text.square().mean() - text[0, 0].sum(), vector)
    assert gradient.norm() > 0


def test_no_encoder_runs_after_caching(folder: Path) -> None:
    base = loaded(folder)
    latents, text = base.encode_video(draw(2, 3, 9, 32, 32)), base.compact(base.encode_text(PROMPTS[:2]))
    base.free_encoders()
    assert not {"vae", "text_encoder"} & set(base._parts) and base.encoder_calls == 2
    velocity = base.velocity(latents, torch.tensor([0.2, 0.9]), text)
    assert velocity.shape == latents.shape and torch.isfinite(velocity).all()
    assert base.token_spans(PROMPT) and len(base.blocks()) == 2
    assert base.encoder_calls == 2 and "vae" not in base._parts


def test_checkpointing_gives_the_same_gradients(folder: Path) -> None:
    base = loaded(folder)
    noisy, text = draw(1, 8, 2, 2, 2), base.encode_text([PROMPT])
    weight = base.blocks()[0].get_submodule("attn1.to_q").weight
    assert isinstance(weight, Tensor)
    weight.requires_grad_()
    gradients = []
    for enabled in (False, True):
        base.set_gradient_checkpointing(enabled)
        loss = base.velocity(noisy, torch.tensor([0.5]), text).square().mean()
        gradients.append(torch.autograd.grad(loss, weight)[0])
    assert torch.equal(*gradients) and gradients[0].norm() > 0


def test_half_precision_keeps_the_callers_dtype(folder: Path, base: LTXBase) -> None:
    half, noisy, sigma = loaded(folder, torch.bfloat16), draw(1, 8, 2, 2, 2), torch.tensor([0.5])
    text = half.encode_text([PROMPT])
    assert text.tensors["text"].dtype == torch.float32
    velocity, full = half.velocity(noisy, sigma, text), base.velocity(noisy, sigma, text)
    assert velocity.dtype == torch.float32
    assert (velocity - full).abs().max() < 0.05 * full.abs().max()
    assert half.decode_video(half.encode_video(draw(1, 3, 9, 32, 32))).isfinite().all()


def test_blocks_and_targets(base: LTXBase) -> None:
    ((span, denoiser),) = base.experts()
    assert span == (0.0, 1.0)
    names = [name for name, module in denoiser.named_modules() if isinstance(module, torch.nn.Linear)]
    chosen = [name for name in names if name.endswith(tuple(f".{target}" for target in base.spec.lora_targets))]
    assert chosen == [name for name in names if name.startswith("transformer_blocks.")]
    assert len(chosen) == len(base.blocks()) * len(base.spec.lora_targets)
