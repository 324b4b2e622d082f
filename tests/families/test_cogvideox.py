"""CogVideoX against the stock pipeline over the same folder, fp32, CPU: rotary with DPM (5b), sines with DDIM (2b)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import CogVideoXPipeline
from torch import Tensor

from pipeline_lib import seeding
from pipeline_lib.errors import InputError
from pipeline_lib.generation.sample import SamplingSettings, generate
from pipeline_lib.models.base import BaseModel
from pipeline_lib.models.cogvideox import CogVideoXBase
from pipeline_lib.models.diffusers_base import HIDDEN_SENTINEL
from pipeline_lib.models.learned_tokens import LearnedTokens, TokenMode
from pipeline_lib.models.load import load_base
from pipeline_lib.models.tiny_cogvideox import tiny_cogvideox

PROMPTS = ["a red  dog &amp; a cat on the <extra_id_0> beach", "", "a dog, " * 90]
PROMPT = "a red dog running on the beach"
TIMESTEPS = [0, 1, 7, 50, 123, 250, 400, 501, 700, 900, 997, 998, 999]


@pytest.fixture(scope="module", params=[True, False], ids=["rotary", "sines"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_cogvideox(tmp_path_factory.mktemp("cogvideox"), rotary=request.param)


@pytest.fixture(scope="module")
def base(folder: Path) -> CogVideoXBase:
    return opened(folder)


@pytest.fixture(scope="module")
def stock(folder: Path) -> CogVideoXPipeline:
    pipeline = CogVideoXPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def opened(folder: Path, **options: Any) -> CogVideoXBase:
    base = load_base(str(folder), **options)
    assert isinstance(base, CogVideoXBase)
    return base


def draw(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pixels(frames: int, height: int = 32, width: int = 32) -> Tensor:
    return draw(2, 3, frames, height, width).tanh()


@pytest.mark.parametrize("frames", [1, 9, 17])
@torch.no_grad()
def test_latents(base: CogVideoXBase, stock: CogVideoXPipeline, frames: int) -> None:
    clips = pixels(frames)
    ours = base.encode_video(clips)
    assert ours.shape == (2, 4, 1 + (frames - 1) // 4, 4, 4) and ours.dtype == torch.float32
    expected = torch.cat([stock.vae.encode(clip[None]).latent_dist.mode() for clip in clips])
    torch.testing.assert_close(ours, stock.vae_scaling_factor_image * expected, atol=1e-5, rtol=0)
    decoded = base.decode_video(ours)
    assert decoded.shape == clips.shape
    torch.testing.assert_close(decoded, stock.decode_latents(ours.transpose(1, 2)), atol=1e-5, rtol=0)


@torch.no_grad()
def test_text_embeddings(base: CogVideoXBase, stock: CogVideoXPipeline) -> None:
    expected, negative = stock.encode_prompt(PROMPTS, negative_prompt=[""] * len(PROMPTS))
    ours = base.encode_text(PROMPTS)
    assert len(ours) == len(PROMPTS)
    torch.testing.assert_close(ours.tensors["text"], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(base.encode_text([""]).tensors["text"], negative[:1], atol=1e-5, rtol=0)
    assert ours.tensors["length"].tolist()[1:] == [1, 226]
    assert base.compact(ours) is ours


def implied_prediction(base: CogVideoXBase, velocity: Tensor, rescaled: Tensor, timestep: int) -> Tensor:
    """The v-prediction that a velocity implies, from the stock scheduler's alpha-bar alone."""
    alpha_bar = base.pipeline().scheduler.alphas_cumprod[timestep]
    signal, noise = float(alpha_bar.sqrt()), float((1 - alpha_bar).sqrt())
    return (velocity - (noise - signal) * rescaled) / (signal + noise)


def stock_prediction(stock: CogVideoXPipeline, latents: Tensor, timestep: int, text: Tensor) -> Tensor:
    """As the stock call asks for it; latents channels-first."""
    rotary = None
    if stock.transformer.config.use_rotary_positional_embeddings:
        _, _, frames, height, width = latents.shape
        rotary = stock._prepare_rotary_positional_embeddings(height * 8, width * 8, frames, torch.device("cpu"))
    prediction: Tensor = stock.transformer(
        hidden_states=latents.transpose(1, 2),
        encoder_hidden_states=text,
        timestep=torch.full((len(latents),), timestep),
        image_rotary_emb=rotary,
        return_dict=False,
    )[0]
    return prediction.transpose(1, 2)


@pytest.mark.parametrize("timestep", TIMESTEPS)
@torch.no_grad()
def test_velocity_is_the_stock_prediction(base: CogVideoXBase, stock: CogVideoXPipeline, timestep: int) -> None:
    text = base.encode_text(PROMPTS[:2])
    alpha_bar = stock.scheduler.alphas_cumprod[timestep]
    signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    noisy = draw(2, 4, 3, 4, 4) / float(signal + noise)
    sigma = (noise / (signal + noise)).float().expand(2)
    velocity = base.velocity(noisy, sigma, text)
    rescaled = noisy * float(signal + noise)
    expected = stock_prediction(stock, rescaled, timestep, text.tensors["text"])
    ours = implied_prediction(base, velocity, rescaled, timestep)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("frames", "height", "width"), [(9, 32, 32), (17, 48, 32), (1, 16, 64)])
@torch.no_grad()
def test_every_denoising_step(
    base: CogVideoXBase, stock: CogVideoXPipeline, frames: int, height: int, width: int
) -> None:
    """The stock call's steps, against its scheduler fed with our guided velocity."""
    seen: list[Tensor] = []

    def watch(_pipeline: Any, _index: int, _timestep: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append(tensors["latents"].transpose(1, 2).clone())
        return {}

    noise = draw(1, 4, 1 + (frames - 1) // 4, height // 8, width // 8)
    stock(
        PROMPTS[0],
        latents=noise.transpose(1, 2).clone(),
        num_frames=frames,
        height=height,
        width=width,
        num_inference_steps=4,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
        callback_on_step_end=watch,
    )
    ours = steps_by_hand(base, noise, guidance=3.0, steps=4, generator=torch.Generator().manual_seed(5))
    for step in range(4):
        torch.testing.assert_close(ours[step], seen[step], atol=1e-5, rtol=0)


def steps_by_hand(
    base: CogVideoXBase, noisy: Tensor, guidance: float, steps: int, generator: torch.Generator
) -> list[Tensor]:
    text = base.encode_text([PROMPTS[0], ""])
    scheduler: Any = base.pipeline().scheduler
    dpm = type(scheduler).__name__ == "CogVideoXDPMScheduler"
    scheduler.set_timesteps(steps)
    taken, estimate = [], None
    for index, timestep in enumerate(scheduler.timesteps):
        sigma = base.schedule.sigmas[timestep]
        flow = noisy / float(
            (scheduler.alphas_cumprod[timestep]).sqrt() + (1 - scheduler.alphas_cumprod[timestep]).sqrt()
        )
        given, empty = base.velocity(flow.repeat(2, 1, 1, 1, 1), sigma.expand(2), text).chunk(2)
        prediction = implied_prediction(base, empty + guidance * (given - empty), noisy, int(timestep))
        # The scheduler draws its noise in the stock layout.
        stock_layout = prediction.transpose(1, 2), noisy.transpose(1, 2)
        if dpm:
            before = scheduler.timesteps[index - 1] if index else None
            noisy, estimate = scheduler.step(
                stock_layout[0], estimate, timestep, before, stock_layout[1], generator=generator, return_dict=False
            )
        else:
            noisy = scheduler.step(stock_layout[0], timestep, stock_layout[1], return_dict=False)[0]
        noisy = noisy.transpose(1, 2)
        taken.append(noisy)
    return taken


def test_a_full_generation_is_the_stock_one(base: CogVideoXBase, stock: CogVideoXPipeline) -> None:
    settings = SamplingSettings.of(base.spec)
    video = stock(
        PROMPTS[0],
        negative_prompt=settings.negative_prompt,
        height=32,
        width=32,
        num_frames=9,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        generator=seeding.generator(11, "sample"),
        output_type="np",
    ).frames[0]
    ours = generate(base, PROMPTS[0], 11, settings)
    assert ours.shape == (9, 32, 32, 3)
    assert (ours == (video * 255).round()).all()


def test_the_pipeline_names_the_folders_scheduler(base: CogVideoXBase, stock: CogVideoXPipeline) -> None:
    pipeline = base.pipeline()
    assert type(pipeline.scheduler) is type(stock.scheduler)
    assert pipeline.scheduler is not base.pipeline().scheduler
    assert pipeline.scheduler.config == stock.scheduler.config


def test_velocity_takes_each_rows_own_sigma_and_text(base: CogVideoXBase) -> None:
    noisy, sigma = draw(3, 4, 3, 4, 4), torch.tensor([0.1, 0.5, 0.9])
    text = base.encode_text(PROMPTS)
    together = base.velocity(noisy, sigma, text)
    for row in range(3):
        alone = base.velocity(noisy[row : row + 1], sigma[row : row + 1], text.take([row]))
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0)


# Text: spans, hidden tokens, learned rows.


def test_spans_cover_the_words(base: CogVideoXBase) -> None:
    spans = base.token_spans(PROMPT)
    assert [PROMPT[start:stop] for start, stop in spans] == PROMPT.split()
    for prompt in (PROMPT, "", "  a   dog &amp; cat ", "a <extra_id_0> dog cat, 日本 dog", PROMPTS[2]):
        count = int(base.encode_text([prompt]).tensors["length"][0]) - 1
        assert len(base.token_spans(prompt)) == len(base.token_embeddings(prompt)) == count


def test_hidden_tokens_keep_positions(base: CogVideoXBase, stock: CogVideoXPipeline) -> None:
    hidden = base.encode_text([PROMPT, PROMPT], hidden=[[2], []])
    sentinel = base.sentinel(HIDDEN_SENTINEL)
    changed = torch.tensor(stock.tokenizer(PROMPT, padding="max_length", max_length=226).input_ids)[None]
    changed[0, 2] = stock.tokenizer.convert_tokens_to_ids(sentinel)
    with torch.no_grad():
        by_ids = stock.text_encoder(changed)[0]
    torch.testing.assert_close(hidden.tensors["text"][:1], by_ids, atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden.tensors["text"][1:], base.encode_text([PROMPT]).tensors["text"])


def test_a_learned_row_gets_gradient_through_the_model(base: CogVideoXBase) -> None:
    text = base.encode_text([PROMPT, PROMPT])
    vector = torch.zeros(24, requires_grad=True)
    replaced = base.replace_rows(text, [[2], []], vector)
    assert torch.equal(replaced.tensors["text"][0, 2], vector)
    untouched = torch.ones(2, 226, dtype=torch.bool)
    untouched[0, 2] = False
    assert torch.equal(replaced.tensors["text"][untouched], text.tensors["text"][untouched])
    velocity = base.velocity(draw(2, 4, 3, 4, 4), torch.full((2,), 0.5), replaced)
    (gradient,) = torch.autograd.grad(velocity.square().mean(), vector)
    assert torch.isfinite(gradient).all() and gradient.norm() > 0


def test_a_word_at_the_encoders_input(base: CogVideoXBase) -> None:
    word = draw(24).requires_grad_()
    sentinel = base.sentinel(0)
    text = base.encode_text([f"a {sentinel} dog"], words={sentinel: word}).tensors["text"]
    (gradient,) = torch.autograd.grad(text.square().mean(), word)
    assert gradient.norm() > 0
    assert not torch.equal(text, base.encode_text([f"a {sentinel} dog"]).tensors["text"])
    with pytest.raises(InputError, match="extra_id_999"):
        base.sentinel(999)
    assert 0.1 < base.text_embedding_rms < 10


@pytest.mark.parametrize("mode", ["encoder_output", "encoder_input"])
@torch.no_grad()
def test_the_stock_pipeline_reads_learned_words_as_training_does(
    base: CogVideoXBase, stock: CogVideoXPipeline, mode: TokenMode
) -> None:
    word, sentinel = draw(24), base.sentinel(0)
    prompts = [f"a {sentinel} dog", "a cat"]
    attached = LearnedTokens({"v": word}, {"v": sentinel}, mode).attach(stock.text_encoder, stock.tokenizer)
    read, _ = stock.encode_prompt(prompts, do_classifier_free_guidance=False)
    attached.remove()
    if mode == "encoder_output":
        positions = [prompts[0][start:stop] == sentinel for start, stop in base.token_spans(prompts[0])]
        trained = base.replace_rows(base.encode_text(prompts), [[positions.index(True)], []], word)
    else:
        trained = base.encode_text(prompts, words={sentinel: word})
    torch.testing.assert_close(read, trained.tensors["text"], atol=1e-5, rtol=0)
    assert not torch.equal(read[0], stock.encode_prompt(prompts[0], do_classifier_free_guidance=False)[0][0])


# Memory: lazy parts, checkpointing, half precision.


def test_no_encoder_runs_after_caching(folder: Path) -> None:
    base = opened(folder)
    latents, text = base.encode_video(pixels(9)), base.compact(base.encode_text(PROMPTS[:2]))
    base.free_encoders()
    assert base.encoder_calls == 2
    for sigma in (0.2, 0.9):
        velocity = base.velocity(latents, torch.full((2,), sigma), text)
        assert velocity.shape == latents.shape and torch.isfinite(velocity).all()
    base.token_spans(PROMPT)
    assert base.encoder_calls == 2 and not {"vae", "text_encoder"} & set(base._parts)
    assert torch.equal(base.encode_video(pixels(9)), latents)


def test_checkpointing_changes_no_gradient(folder: Path) -> None:
    base = opened(folder)
    weights = [block.attn1.to_q.weight.requires_grad_() for block in base.blocks()]  # type: ignore[union-attr]
    text = base.encode_text(PROMPTS[:2])

    def gradients() -> tuple[Tensor, ...]:
        loss = base.velocity(draw(2, 4, 3, 4, 4), torch.tensor([0.3, 0.8]), text).square().mean()
        return torch.autograd.grad(loss, weights)

    plain = gradients()
    base.set_gradient_checkpointing(True)
    assert base.transformer.is_gradient_checkpointing
    for ours, expected in zip(gradients(), plain, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-7, rtol=0)
    assert all(gradient.norm() > 0 for gradient in plain)
    base.set_gradient_checkpointing(False)
    assert not base.transformer.is_gradient_checkpointing


def test_half_precision_keeps_the_callers_dtype(folder: Path, base: CogVideoXBase) -> None:
    rotary = base.transformer.config.use_rotary_positional_embeddings
    half = opened(folder, dtype=torch.bfloat16 if rotary else torch.float16)  # as the 5b and the 2b were trained
    text = half.encode_text([PROMPT])
    assert text.tensors["text"].dtype == torch.float32
    noisy, sigma = draw(1, 4, 3, 4, 4), torch.tensor([0.5])
    velocity = half.velocity(noisy, sigma, text)
    assert velocity.dtype == torch.float32
    full = base.velocity(noisy, sigma, base.encode_text([PROMPT]))
    assert (velocity - full).abs().max() < 0.05 * full.abs().max()
    assert half.encode_video(pixels(9)).dtype == half.decode_video(half.encode_video(pixels(9))).dtype == torch.float32


def test_blocks_and_targets(base: BaseModel) -> None:
    ((span, denoiser),) = base.experts()
    assert span == (0.0, 1.0)
    names = [name for name, module in denoiser.named_modules() if isinstance(module, torch.nn.Linear)]
    chosen = [name for name in names if name.endswith(tuple(f".{target}" for target in base.spec.lora_targets))]
    blocks = [name for name in names if name.startswith("transformer_blocks.")]
    assert chosen == [name for name in blocks if ".norm" not in name]  # the norms' linears read the timestep
    assert len(chosen) == len(base.blocks()) * len(base.spec.lora_targets)
