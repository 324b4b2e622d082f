"""Wan 2.2's two variants against the stock pipeline over the same folder, fp32, CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline
from torch import Tensor

from pipeline_lib import seeding
from pipeline_lib.errors import InputError
from pipeline_lib.generation.sample import SamplingSettings, generate
from pipeline_lib.models.folder import CARD_NAME
from pipeline_lib.models.load import load_base
from pipeline_lib.models.self_conditioning import SelfConditioning
from pipeline_lib.models.tiny import tiny_wan_a14b, tiny_wan_ti2v
from pipeline_lib.models.wan import WanBase
from pipeline_lib.models.wan_experts import WanExperts

PROMPTS = ["a red  dog &amp; a cat on the <extra_id_0> beach", "", "a dog, " * 60]
MAKERS: dict[str, Callable[[Path], Path]] = {"ti2v": tiny_wan_ti2v, "a14b": tiny_wan_a14b}
LATENTS = {"ti2v": (48, 2, 2, 4), "a14b": (16, 2, 4, 4)}  # of 5 frames at the card's size
BOUNDARY = 875


@pytest.fixture(scope="module", params=MAKERS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(variant: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MAKERS[variant](tmp_path_factory.mktemp("wan22"))


@pytest.fixture(scope="module")
def a14b_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_wan_a14b(tmp_path_factory.mktemp("a14b"))


@pytest.fixture(scope="module")
def base(folder: Path) -> WanBase:
    return wan(folder)


@pytest.fixture(scope="module")
def stock(folder: Path) -> Any:
    pipeline = WanPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def wan(folder: Path) -> WanBase:
    loaded = load_base(str(folder))
    assert isinstance(loaded, WanBase)
    return loaded


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def paddings(base: WanBase) -> list[Any]:
    return [base.padding, base.low_noise_padding] if isinstance(base, WanExperts) else [base.padding]


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("frames", [1, 5, 9])
@torch.no_grad()
def test_latents(base: WanBase, stock: Any, variant: str, frames: int) -> None:
    pixels = draw(2, 3, frames, 32, 64).tanh()
    ours = base.encode_video(pixels)
    mode = stock.vae.encode(pixels).latent_dist.mode()
    mean, std = (torch.tensor(getattr(stock.vae.config, f"latents_{name}")) for name in ("mean", "std"))
    expected = (mode - mean.view(1, -1, 1, 1, 1)) / std.view(1, -1, 1, 1, 1)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    scale = 16 if variant == "ti2v" else 8
    assert ours.shape == (2, LATENTS[variant][0], 1 + frames // 4, 32 // scale, 64 // scale)
    decoded = base.decode_video(ours)
    torch.testing.assert_close(decoded, stock.vae.decode(mode, return_dict=False)[0], atol=1e-5, rtol=0)
    assert decoded.shape == pixels.shape


@torch.no_grad()
def test_text(base: WanBase, stock: Any) -> None:
    expected, _ = stock.encode_prompt(PROMPTS, do_classifier_free_guidance=False, max_sequence_length=512)
    ours = base.encode_text(PROMPTS)
    torch.testing.assert_close(ours.tensors["text"], expected, atol=1e-5, rtol=0)
    spans = base.token_spans(PROMPTS[0])
    assert len(spans) == len(base.token_embeddings(PROMPTS[0])) == int(ours.tensors["length"][0]) - 1
    replaced = base.replace_rows(ours, [[0], [], []], torch.ones(24))
    assert bool((replaced.tensors["text"][0, 0] == 1).all()) and base.sentinel(0) == "<extra_id_0>"


def stock_steps(stock: Any, noise: Tensor, guidance: tuple[float, float]) -> list[tuple[Tensor, Tensor]]:
    """Timestep and latents after each step of the stock call."""
    steps: list[tuple[Tensor, Tensor]] = []

    def watch(_pipeline: Any, _index: int, timestep: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        steps.append((timestep, tensors["latents"].clone()))
        return {}

    stock(
        PROMPTS[0],
        latents=noise.clone(),
        num_frames=5,
        height=32,
        width=64 if noise.shape[1] == 48 else 32,
        num_inference_steps=3,
        guidance_scale=guidance[0],
        guidance_scale_2=guidance[1] if stock.transformer_2 else None,
        output_type="latent",
        callback_on_step_end=watch,
    )
    return steps


@torch.no_grad()
def test_every_denoising_step(base: WanBase, stock: Any, variant: str) -> None:
    """The stock call's steps, high noise and low, against the scheduler fed with our guided velocity."""
    guidance, latents = (4.0, 2.5), draw(1, *LATENTS[variant])
    steps = stock_steps(stock, latents, guidance)
    assert [int(timestep) >= BOUNDARY for timestep, _ in steps] == [True, True, False]
    text = base.encode_text([PROMPTS[0], ""])
    scheduler = type(stock.scheduler).from_config(stock.scheduler.config)
    scheduler.set_timesteps(3)
    for timestep, expected in steps:
        with_prompt, without = base.velocity(latents.repeat(2, 1, 1, 1, 1), timestep.expand(2) / 1000, text).chunk(2)
        scale = guidance[1] if variant == "a14b" and timestep < BOUNDARY else guidance[0]
        latents = scheduler.step(without + scale * (with_prompt - without), timestep, latents, return_dict=False)[0]
        torch.testing.assert_close(latents, expected, atol=1e-5, rtol=0)


def test_a_full_generation_is_the_stock_one(base: WanBase, stock: Any, variant: str) -> None:
    settings = SamplingSettings.of(base.spec)
    low_noise = {"guidance_scale_2": 3.0} if variant == "a14b" else {}
    video = stock(
        PROMPTS[0],
        negative_prompt=settings.negative_prompt,
        height=settings.height,
        width=settings.width,
        num_frames=5,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        generator=seeding.generator(11, "sample"),
        **low_noise,
    ).frames[0]
    expected = (video * 255).round()
    ours = generate(base, PROMPTS[0], 11, settings)
    assert ours.shape == (5, settings.height, settings.width, 3)
    assert abs(ours - expected).max() <= 1  # collapsed padding moves the last float bits
    for padding in paddings(base):
        padding.enabled = False
    try:
        assert (generate(base, PROMPTS[0], 11, settings) == expected).all()
    finally:
        for padding in paddings(base):
            padding.enabled = True


def test_a_guidance_of_ones_own_is_for_both_experts(a14b_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = wan(a14b_folder)
    low_noise: list[float | None] = []
    pipeline = base.pipeline()
    kept = pipeline.check_inputs

    def watch(*inputs: Any) -> None:
        low_noise.append(inputs[-1])
        kept(*inputs)

    monkeypatch.setattr(pipeline, "check_inputs", watch)
    own = SamplingSettings.of(base.spec)
    for scale in (own.guidance_scale, 2.0):
        chosen = SamplingSettings(**{**vars(own), "guidance_scale": scale, "num_inference_steps": 1})
        generate(base, "a dog", 1, chosen, pipeline=pipeline)
    assert low_noise == [3.0, None]  # None: as the other


def test_each_sample_goes_to_its_expert_by_its_sigma(a14b_folder: Path) -> None:
    base = wan(a14b_folder)
    assert isinstance(base, WanExperts)
    (high, _), (low, _) = experts = base.experts()
    assert (high, low) == ((0.875, 1.0), (0.0, 0.875))
    noisy, text = draw(4, 16, 2, 4, 4), base.encode_text([*PROMPTS, "a cat"])
    sigma = torch.tensor([0.2, 0.95, 0.8749, 0.875])
    together = base.velocity(noisy, sigma, text)
    for row, expert in enumerate((1, 0, 1, 0)):
        alone = experts[expert][1](
            hidden_states=noisy[row : row + 1],
            timestep=sigma[row : row + 1] * 1000,
            encoder_hidden_states=text.tensors["text"][row : row + 1],
            return_dict=False,
        )[0]
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0)
    assert len(base.blocks()) == 4


def test_no_encoder_runs_after_caching(folder: Path, variant: str) -> None:
    base = wan(folder)
    latents = base.encode_video(draw(1, 3, 5, 32, 32).tanh())
    text = base.compact(base.encode_text(PROMPTS[:1]))
    base.free_encoders()
    calls = base.encoder_calls
    for sigma in (0.2, 0.95):
        velocity = base.velocity(latents, torch.tensor([sigma]), text)
        assert velocity.shape == latents.shape and torch.isfinite(velocity).all()
    assert base.encoder_calls == calls == 2


def test_recomputation_gives_the_same_gradients(folder: Path, variant: str) -> None:
    base = wan(folder)
    noisy, sigma = draw(3, *LATENTS[variant]), torch.tensor([0.3, 0.95, 0.9])
    text = base.compact(base.encode_text(PROMPTS))
    gradients = []
    for recompute in (False, True):
        base.set_gradient_checkpointing(recompute)
        vector = torch.zeros(24, requires_grad=True)
        velocity = base.velocity(noisy, sigma, base.replace_rows(text, [[1], [], [2]], vector))
        gradients.append(torch.autograd.grad(velocity.square().mean(), vector)[0])
    assert bool(gradients[0].any())
    torch.testing.assert_close(gradients[0], gradients[1], atol=0, rtol=0)


@torch.no_grad()
def test_self_conditioning_on_a_timestep_for_each_token(tmp_path: Path) -> None:
    base = wan(tiny_wan_ti2v(tmp_path))
    live = SelfConditioning.zero(base.transformer, base.spec.patch_embedding)
    live.remove()
    pipeline = base.pipeline()
    settings = SamplingSettings.of(base.spec)
    bare = generate(base, "a dog", 1, settings, pipeline=pipeline)
    attached = live.projection().attach(pipeline)
    assert (generate(base, "a dog", 1, settings, pipeline=pipeline) == bare).all()
    attached.remove()


@pytest.mark.parametrize(
    ("variant", "size", "time", "sampling"),
    [("ti2v", (704, 1280, 32), (121, 24.0), (5.0, None, 50)), ("a14b", (480, 832, 16), (81, 16.0), (4.0, 3.0, 40))],
)
def test_without_a_card_the_published_defaults_hold(
    tmp_path: Path, variant: str, size: tuple[int, int, int], time: tuple[int, float], sampling: tuple[Any, ...]
) -> None:
    folder = MAKERS[variant](tmp_path)
    (folder / CARD_NAME).unlink()
    edit(folder / "transformer" / "config.json", text_dim=4096)
    spec = wan(folder).spec
    rules = spec.frame_rules
    assert (rules.height, rules.width, rules.size_multiple) == size
    assert (rules.num_frames, rules.frames_per_second, rules.frame_multiple) == (*time, 4)
    assert (spec.guidance_scale, spec.low_noise_guidance_scale, spec.sampling_steps) == sampling
    assert spec.sigma_shift == (5.0 if variant == "ti2v" else 7.0)  # the folder's scheduler's
    assert spec.negative_prompt and spec.licence == "Apache-2.0"
    edit(folder / "scheduler" / "scheduler_config.json", flow_shift=None)
    assert wan(folder).spec.sigma_shift == (5.0 if variant == "ti2v" else 12.0)


@pytest.mark.parametrize(
    ("variant", "part", "changes", "message"),
    [
        ("a14b", "model_index.json", {"boundary_ratio": None}, "two experts.*boundary_ratio.*0.875"),
        ("a14b", "model_index.json", {"boundary_ratio": 875}, "two experts"),
        ("a14b", "model_index.json", {"transformer_2": [None, None]}, "no transformer_2"),
        ("a14b", "transformer_2/config.json", {"image_dim": 8}, "image"),
        ("a14b", "transformer_2/config.json", {"in_channels": 8, "out_channels": 8}, "different latents"),
        ("ti2v", "transformer/config.json", {"patch_size": [1, 1, 1]}, "timestep per token"),
        ("ti2v", "transformer/config.json", {"in_channels": 96}, "image"),
        ("ti2v", "vae/config.json", {"scale_factor_spatial": 8}, "spatial 16, temporal 4"),
        ("ti2v", "model_index.json", {"_class_name": "WanImageToVideoPipeline"}, "WanImageToVideoPipeline"),
    ],
)
def test_contradictions_are_refused(
    tmp_path: Path, variant: str, part: str, changes: dict[str, object], message: str
) -> None:
    folder = MAKERS[variant](tmp_path)
    edit(folder / part, **changes)
    with pytest.raises(InputError, match=message):
        load_base(str(folder))


def test_wrong_sizes_name_a_valid_one(folder: Path, variant: str) -> None:
    base = wan(folder)
    multiple = 32 if variant == "ti2v" else 16
    with pytest.raises(InputError, match=f"multiples of {multiple}"):
        base.encode_video(torch.zeros(1, 3, 5, 32, 40))
    settings = vars(SamplingSettings.of(base.spec))
    with pytest.raises(InputError, match=f"multiples of {multiple}"):
        generate(base, "a dog", 0, SamplingSettings(**{**settings, "width": 40}))
    with pytest.raises(InputError, match=r"1 \+ 4k frames.*the nearest: 5 or 9 frames"):
        generate(base, "a dog", 0, SamplingSettings(**{**settings, "num_frames": 7}))
