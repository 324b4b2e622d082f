"""Wan 2.1: our verbs against the stock pipeline over the same folder, fp32, CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from pipeline_lib import seeding
from pipeline_lib.generation.sample import SamplingSettings, generate, stock_num_frames
from pipeline_lib.models.base import BaseModel
from pipeline_lib.models.load import load_base
from pipeline_lib.models.tiny import tiny_wan

PROMPTS = ["a red  dog &amp; a cat on the <extra_id_0> beach", "", "a dog, " * 60]
FOLDERS: dict[str, Callable[[Path], Path]] = {
    "wan 2.1": tiny_wan,
    "two frames per latent": lambda folder: tiny_wan(folder, temporal_factor=2),
    "no temporal compression": lambda folder: tiny_wan(folder, temporal_factor=1),
}


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FOLDERS[request.param](tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def base(folder: Path) -> BaseModel:
    return load_base(str(folder))


@pytest.fixture(scope="module")
def stock(folder: Path) -> Any:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def pixels(frames: int) -> Tensor:
    return draw(2, 3, frames, 32, 32).tanh()


@pytest.mark.parametrize("frames", [1, 5, 9])
@torch.no_grad()
def test_latents(base: BaseModel, stock: Any, frames: int) -> None:
    ours = base.encode_video(pixels(frames))
    config = stock.vae.config
    mode = stock.vae.encode(pixels(frames)).latent_dist.mode()
    mean = torch.tensor(config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(config.latents_std).view(1, -1, 1, 1, 1)
    torch.testing.assert_close(ours, (mode - mean) / std, atol=1e-5, rtol=0)
    assert ours.dtype == torch.float32
    decoded = base.decode_video(ours)
    assert decoded.shape == pixels(frames).shape
    stock_pixels = stock.vae.decode(mode, return_dict=False)[0]
    torch.testing.assert_close(decoded, stock_pixels, atol=1e-5, rtol=0)


@torch.no_grad()
def test_text_embeddings(base: BaseModel, stock: Any) -> None:
    expected, negative = stock.encode_prompt(PROMPTS, negative_prompt=[""] * len(PROMPTS), max_sequence_length=512)
    ours = base.encode_text(PROMPTS)
    assert len(ours) == len(PROMPTS)
    torch.testing.assert_close(ours.tensors["text"], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(base.encode_text([""]).tensors["text"], negative[:1], atol=1e-5, rtol=0)


@torch.no_grad()
def test_one_denoising_step(base: BaseModel, stock: Any) -> None:
    """The stock call's first step, against the scheduler fed with our guided velocity."""
    seen: dict[str, Any] = {}
    guidance, noise = 3.0, stock_noise(base, stock)

    def watch(_pipeline: Any, index: int, timestep: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if index == 0:
            seen.update(timestep=timestep, latents=tensors["latents"].clone())
        return {}

    stock(
        PROMPTS[0],
        latents=noise.clone(),
        num_frames=stock_num_frames(stock, 5),
        height=32,
        width=32,
        num_inference_steps=3,
        guidance_scale=guidance,
        output_type="latent",
        callback_on_step_end=watch,
    )
    text = base.encode_text([PROMPTS[0], ""])
    sigma = seen["timestep"].float().expand(2) / stock.scheduler.config.num_train_timesteps
    with_prompt, without = base.velocity(noise.repeat(2, 1, 1, 1, 1), sigma, text).chunk(2)
    guided = without + guidance * (with_prompt - without)
    scheduler = type(stock.scheduler).from_config(stock.scheduler.config)
    scheduler.set_timesteps(3)
    ours = scheduler.step(guided, scheduler.timesteps[0], noise, return_dict=False)[0]
    torch.testing.assert_close(ours, seen["latents"], atol=1e-5, rtol=0)


def stock_noise(base: BaseModel, stock: Any) -> Tensor:
    frames = 1 + (5 - 1) // stock.vae_scale_factor_temporal
    return draw(1, stock.transformer.config.in_channels, frames, 4, 4)


def test_a_full_generation_is_the_stock_one(base: BaseModel, stock: Any) -> None:
    settings = SamplingSettings.of(base.spec)
    video = stock(
        PROMPTS[0],
        negative_prompt=settings.negative_prompt,
        height=32,
        width=32,
        num_frames=stock_num_frames(stock, 5),
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        generator=seeding.generator(11, "sample"),
    ).frames[0]
    expected = (video * 255).round()
    ours = generate(base, PROMPTS[0], 11, settings)
    assert ours.shape == (5, 32, 32, 3)
    assert abs(ours - expected).max() <= 1  # collapsed padding moves the last float bits
    base_as_stock: Any = base
    base_as_stock.padding.enabled = False
    try:
        assert (generate(base, PROMPTS[0], 11, settings) == expected).all()
    finally:
        base_as_stock.padding.enabled = True


def test_no_encoder_runs_after_caching(folder: Path) -> None:
    base: Any = load_base(str(folder))
    latents, text = base.encode_video(pixels(5)), base.compact(base.encode_text(PROMPTS[:2]))
    base.free_encoders()
    calls = base.encoder_calls
    assert calls == 2
    for sigma in (0.2, 0.9):
        velocity = base.velocity(latents, torch.full((2,), sigma), text)
        assert velocity.shape == latents.shape and torch.isfinite(velocity).all()
    assert base.encoder_calls == calls


def test_velocity_takes_each_rows_own_sigma_and_text(base: BaseModel) -> None:
    noisy, sigma = draw(3, 16, 2, 4, 4), torch.tensor([0.1, 0.5, 0.9])
    text = base.encode_text(PROMPTS)
    together = base.velocity(noisy, sigma, text)
    for row in range(3):
        alone = base.velocity(noisy[row : row + 1], sigma[row : row + 1], text.take([row]))
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0)


def test_blocks_and_targets(base: BaseModel) -> None:
    ((span, denoiser),) = base.experts()
    assert span == (0.0, 1.0)
    names = [name for name, module in denoiser.named_modules() if isinstance(module, torch.nn.Linear)]
    chosen = [name for name in names if name.endswith(tuple(f".{target}" for target in base.spec.lora_targets))]
    assert chosen == [name for name in names if name.startswith("blocks.")]
    assert len(chosen) == len(base.blocks()) * len(base.spec.lora_targets)
