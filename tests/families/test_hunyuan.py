"""HunyuanVideo against its stock pipeline over the same tiny folder, fp32, CPU."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoPipeline
from torch import Tensor

from pipeline_lib import seeding
from pipeline_lib.errors import InputError
from pipeline_lib.generation.sample import SamplingSettings, generate
from pipeline_lib.models.base import Conditioning
from pipeline_lib.models.diffusers_base import HIDDEN_SENTINEL
from pipeline_lib.models.folder import CARD_NAME
from pipeline_lib.models.hunyuan import HunyuanBase
from pipeline_lib.models.learned_tokens import LearnedTokens
from pipeline_lib.models.load import load_base
from pipeline_lib.models.tiny_hunyuan import POOLED_WIDTH, TEXT_WIDTH, tiny_hunyuan

PROMPTS = [
    "a red  dog &amp; a cat on the <|reserved_special_token_0|> beach",
    "",
    "a dog, " * 100,
    "a “ dog ” \n cat 日本",
]
PROMPT = "a red dog running on the beach"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hunyuan(tmp_path_factory.mktemp("hunyuan"))


@pytest.fixture(scope="module")
def base(folder: Path) -> HunyuanBase:
    return load(folder)


@pytest.fixture(scope="module")
def stock(folder: Path) -> Any:
    pipeline = HunyuanVideoPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def own_folder(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "base"))


def load(folder: Path, **options: Any) -> HunyuanBase:
    loaded = load_base(str(folder), **options)
    assert isinstance(loaded, HunyuanBase)
    return loaded


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def edit(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("frames", [1, 5, 21])  # from 17 on the autoencoder goes over the frames in pieces
@torch.no_grad()
def test_latents(base: HunyuanBase, stock: Any, frames: int) -> None:
    pixels = draw(2, 3, frames, 32, 32).tanh()
    ours = base.encode_video(pixels)
    mode = stock.vae.encode(pixels).latent_dist.mode()
    torch.testing.assert_close(ours, mode * stock.vae.config.scaling_factor, atol=1e-5, rtol=0)
    assert ours.dtype == torch.float32 and ours.shape == (2, 16, 1 + (frames - 1) // 4, 4, 4)
    decoded = base.decode_video(ours)
    assert decoded.shape == pixels.shape and decoded.dtype == torch.float32
    # Clip by clip, as a stock call does it: the group norms of so small a net make 2e-5 of the rounding in a batch.
    for clip, latents in zip(decoded, ours.split(1), strict=True):
        expected = stock.vae.decode(latents / stock.vae.config.scaling_factor, return_dict=False)[0]
        torch.testing.assert_close(clip[None], expected, atol=1e-5, rtol=0)


def guided(text: Conditioning, scale: float) -> Conditioning:
    """The same text at a guidance scale, as a stock call embeds it."""
    return Conditioning({**text.tensors, "guidance": torch.full((len(text),), scale)})


@torch.no_grad()
def test_text(base: HunyuanBase, stock: Any) -> None:
    text, pooled, mask = stock.encode_prompt(PROMPTS)
    ours = base.encode_text(PROMPTS).tensors
    assert set(ours) == {"text", "length", "pooled", "guidance"}
    torch.testing.assert_close(ours["text"], text * mask[..., None], atol=1e-5, rtol=0)
    torch.testing.assert_close(ours["pooled"], pooled, atol=1e-5, rtol=0)
    assert torch.equal(ours["length"], mask.sum(dim=1)) and ours["length"][2] == 256
    assert ours["text"].std() > 0.1  # the comparison means something


@torch.no_grad()
def test_one_denoising_step(base: HunyuanBase, stock: Any) -> None:
    seen: dict[str, Any] = {}
    noise = draw(1, 16, 2, 4, 4)

    def watch(_pipeline: Any, index: int, timestep: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if index == 0:
            seen.update(timestep=timestep, latents=tensors["latents"].clone())
        return {}

    stock(
        PROMPT,
        latents=noise.clone(),
        num_frames=5,
        height=32,
        width=32,
        num_inference_steps=3,
        guidance_scale=base.spec.guidance_scale,
        output_type="latent",
        callback_on_step_end=watch,
    )
    sigma = seen["timestep"].float().expand(1) / stock.scheduler.config.num_train_timesteps
    velocity = base.velocity(noise, sigma, guided(base.encode_text([PROMPT]), base.spec.guidance_scale))
    scheduler = type(stock.scheduler).from_config(stock.scheduler.config)
    scheduler.set_timesteps(sigmas=[1.0, 2 / 3, 1 / 3])
    ours = scheduler.step(velocity, scheduler.timesteps[0], noise, return_dict=False)[0]
    torch.testing.assert_close(ours, seen["latents"], atol=1e-5, rtol=0)
    assert (seen["latents"] - noise).abs().max() > 0.01


def test_a_full_generation_is_the_stock_one(base: HunyuanBase, stock: Any) -> None:
    settings = SamplingSettings.of(base.spec)
    video = stock(
        PROMPT,
        height=32,
        width=32,
        num_frames=5,
        num_inference_steps=3,
        guidance_scale=6.0,
        generator=seeding.generator(11, "sample"),
        output_type="np",
    ).frames[0]
    ours = generate(base, PROMPT, 11, settings)
    assert ours.shape == (5, 32, 32, 3) and (ours == (video * 255).round()).all()


@torch.no_grad()
def test_training_embeds_no_guidance(base: HunyuanBase, stock: Any) -> None:
    noisy, sigma, text = draw(1, 16, 2, 4, 4), torch.tensor([0.4]), base.encode_text([PROMPT])
    ours = base.velocity(noisy, sigma, text)
    assert not torch.allclose(ours, base.velocity(noisy, sigma, guided(text, 6.0)), atol=1e-4)
    expected = stock.transformer(
        hidden_states=noisy,
        timestep=torch.tensor([400.0]),
        encoder_hidden_states=text.tensors["text"],
        encoder_attention_mask=(torch.arange(256) < text.tensors["length"][:, None]).float(),
        pooled_projections=text.tensors["pooled"],
        guidance=torch.tensor([1000.0]),
        return_dict=False,
    )[0]
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_velocity_takes_each_rows_own_sigma_and_text(base: HunyuanBase) -> None:
    noisy, sigma = draw(3, 16, 2, 4, 4), torch.tensor([0.1, 0.5, 0.9])
    text = base.encode_text([PROMPT, "", "a dog, " * 20])
    together = base.velocity(noisy, sigma, base.compact(text))
    for row in range(3):
        alone = base.velocity(noisy[row : row + 1], sigma[row : row + 1], text.take([row]))
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0)
    assert base.compact(text).tensors["text"].shape[1] == int(text.tensors["length"].max()) < 256


def test_spans_are_of_the_users_prompt(base: HunyuanBase) -> None:
    spans = base.token_spans(PROMPT)
    assert [PROMPT[start:stop] for start, stop in spans] == PROMPT.split()
    assert base.token_spans("") == []
    for prompt in PROMPTS:
        length = int(base.encode_text([prompt]).tensors["length"][0])
        spans = base.token_spans(prompt)
        # Of a prompt that is cut off, no end-of-turn token is left.
        assert len(spans) == (256 if prompt == PROMPTS[2] else length - 1)
        assert all(0 <= start < stop <= len(prompt) for start, stop in spans)
        assert [start for start, _ in spans] == sorted(start for start, _ in spans)
    shown = [PROMPTS[0][start:stop] for start, stop in base.token_spans(PROMPTS[0])]
    assert {"red", "dog", "cat", "<|reserved_special_token_0|>", "beach"} <= set(shown)


@torch.no_grad()
def test_token_embeddings(base: HunyuanBase, stock: Any) -> None:
    ids = stock.tokenizer(PROMPT, add_special_tokens=False).input_ids
    expected = stock.text_encoder.get_input_embeddings().weight[ids[1:]]  # the first word follows a line end, no space
    assert torch.equal(base.token_embeddings(PROMPT)[1:], expected)
    assert base.token_embeddings("").shape == (0, TEXT_WIDTH)


@torch.no_grad()
def test_hidden_words_are_hidden_from_both_encoders(base: HunyuanBase, stock: Any) -> None:
    hidden = base.encode_text([PROMPT, PROMPT], hidden=[[2], []]).tensors
    shown = PROMPT.replace(" dog", f"{base.sentinel(HIDDEN_SENTINEL)}")
    text, _, mask = stock.encode_prompt(shown)
    torch.testing.assert_close(hidden["text"][:1], text * mask[..., None], atol=1e-5, rtol=0)
    whole = base.encode_text([PROMPT]).tensors
    torch.testing.assert_close(hidden["text"][1:], whole["text"], atol=1e-6, rtol=0)
    torch.testing.assert_close(hidden["pooled"][1:], whole["pooled"], atol=1e-6, rtol=0)
    _, pooled, _ = stock.encode_prompt("a red  running on the beach")
    torch.testing.assert_close(hidden["pooled"][:1], pooled, atol=1e-5, rtol=0)
    assert pooled.shape == (1, POOLED_WIDTH) and not torch.allclose(pooled, whole["pooled"], atol=1e-4)


def test_sentinels(base: HunyuanBase) -> None:
    assert base.sentinel(0) == "<|reserved_special_token_0|>"
    assert len(base.token_spans(base.sentinel(3))) == 1
    with pytest.raises(InputError, match="reserved_special_token_999"):
        base.sentinel(999)


def test_a_learned_row_gets_gradient_and_loads_in_the_stock_pipeline(base: HunyuanBase, stock: Any) -> None:
    prompt = f"a {base.sentinel(0)} dog"
    conditioning = base.compact(base.encode_text([prompt]))
    (position,) = [n for n, (start, stop) in enumerate(base.token_spans(prompt)) if stop - start > 5]
    vector = draw(TEXT_WIDTH).requires_grad_()
    replaced = base.replace_rows(conditioning, [[position]], vector)
    velocity = base.velocity(draw(1, 16, 2, 4, 4), torch.tensor([0.5]), replaced)
    (gradient,) = torch.autograd.grad(velocity.square().mean(), vector)
    assert torch.isfinite(gradient).all() and gradient.norm() > 0
    attached = LearnedTokens({"v": vector.detach()}, {"v": base.sentinel(0)}).attach(
        stock.text_encoder, stock.tokenizer
    )
    try:
        text, _, mask = stock.encode_prompt(prompt)
    finally:
        attached.remove()
    torch.testing.assert_close(replaced.tensors["text"], text[mask.bool()][None], atol=1e-5, rtol=0)


def test_words_at_the_input_are_differentiable(base: HunyuanBase) -> None:
    word = draw(TEXT_WIDTH).requires_grad_()
    encoded = base.encode_text([f"a {base.sentinel(0)} dog"], words={base.sentinel(0): word})
    (gradient,) = torch.autograd.grad(encoded.tensors["text"].square().sum(), word)
    assert gradient.norm() > 0


def test_no_encoder_runs_after_caching(folder: Path) -> None:
    base = load(folder)
    latents, text = base.encode_video(draw(2, 3, 5, 32, 32).tanh()), base.compact(base.encode_text([PROMPT, ""]))
    base.free_encoders()
    assert not {"vae", "text_encoder", "text_encoder_2"} & set(base._parts)
    calls = base.encoder_calls
    assert calls == 3  # a video, and two text encoders
    base.velocity(latents, torch.tensor([0.2, 0.9]), text)
    base.token_spans(PROMPT)
    assert base.encoder_calls == calls and not {"vae", "text_encoder", "text_encoder_2"} & set(base._parts)
    assert torch.equal(base.compact(base.encode_text([PROMPT, ""])).tensors["text"], text.tensors["text"])


def test_checkpointing_gives_the_same_gradients(folder: Path) -> None:
    base = load(folder)
    noisy, sigma, text = draw(2, 16, 2, 4, 4), torch.tensor([0.3, 0.8]), base.encode_text([PROMPT, "a cat"])
    base.transformer.requires_grad_(True)
    found = []
    for enabled in (False, True):
        base.set_gradient_checkpointing(enabled)
        base.transformer.zero_grad()
        base.velocity(noisy, sigma, text).square().mean().backward()
        found.append({name: weight.grad.clone() for name, weight in base.transformer.named_parameters()})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=1e-5)


def test_blocks_and_targets(base: HunyuanBase) -> None:
    kinds = [type(block).__name__ for block in base.blocks()]
    assert kinds == ["HunyuanVideoTransformerBlock"] * 2 + ["HunyuanVideoSingleTransformerBlock"] * 2
    linears = {name for name, module in base.transformer.named_modules() if isinstance(module, torch.nn.Linear)}
    assert set(base.spec.lora_targets) == {
        name
        for name in linears
        if name.startswith(("transformer_blocks.", "single_transformer_blocks.")) and ".norm" not in name
    }


def test_half_precision_keeps_the_callers_dtype(folder: Path, base: HunyuanBase) -> None:
    half = load(folder, dtype=torch.bfloat16)
    text = half.encode_text([PROMPT])
    noisy, sigma = draw(1, 16, 2, 4, 4), torch.tensor([0.5])
    velocity = half.velocity(noisy, sigma, text)
    assert velocity.dtype == text.tensors["text"].dtype == torch.float32
    full = base.velocity(noisy, sigma, base.encode_text([PROMPT]))
    assert (velocity - full).abs().max() < 0.05 * full.abs().max()
    pixels = draw(1, 3, 5, 32, 32).tanh()
    torch.testing.assert_close(half.encode_video(pixels), base.encode_video(pixels), atol=0.02, rtol=0)


def test_the_published_index_names_a_tokenizer_class_that_loses_spaces(own_folder: Path, base: HunyuanBase) -> None:
    edit(own_folder, "model_index.json", tokenizer=["transformers", "LlamaTokenizerFast"])
    broken = HunyuanVideoPipeline.from_pretrained(own_folder).tokenizer
    assert broken.tokenize("a dog") != base.pipeline().tokenizer.tokenize("a dog")  # else transformers mended it
    ours = load(own_folder).encode_text([PROMPT]).tensors["text"]
    assert torch.equal(ours, base.encode_text([PROMPT]).tensors["text"])


@pytest.mark.parametrize(("frames", "height"), [(4, 32), (6, 32), (5, 40), (5, 24)])
def test_clips_that_would_be_cut_are_refused(base: HunyuanBase, frames: int, height: int) -> None:
    with pytest.raises(InputError, match=r"1 \+ 4k frames, sides that are multiples of 16"):
        base.encode_video(torch.zeros(1, 3, frames, height, 32))
    with pytest.raises(InputError, match="cannot make this"):
        generate(base, "a dog", 0, replace(SamplingSettings.of(base.spec), num_frames=frames, height=height))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_condition_type": "latent_concat", "in_channels": 33}, "conditioned on an image"),
        ({"image_condition_type": "token_replace"}, "conditioned on an image"),
        ({"in_channels": 32}, "conditioned on an image"),
        ({"guidance_embeds": False}, "not guidance-distilled"),
        ({"in_channels": 8, "out_channels": 8}, "do not go together"),
    ],
)
def test_other_variants_are_refused(own_folder: Path, changes: dict[str, Any], message: str) -> None:
    edit(own_folder, "transformer/config.json", **changes)
    with pytest.raises(InputError, match=message):
        load_base(str(own_folder))


def test_other_pipelines_and_damaged_folders_are_refused(own_folder: Path, base: HunyuanBase) -> None:
    shutil.rmtree(own_folder / "text_encoder_2")
    with pytest.raises(InputError, match="has no text_encoder_2"):
        load_base(str(own_folder))
    edit(own_folder, "model_index.json", _class_name="HunyuanVideoImageToVideoPipeline")
    with pytest.raises(InputError, match=r"HunyuanVideoImageToVideoPipeline.*hunyuan \(HunyuanVideoPipeline\)"):
        load_base(str(own_folder))


def test_tokenizers_that_do_not_fit_the_template_are_refused(own_folder: Path) -> None:
    kept = (own_folder / "tokenizer" / "tokenizer.json").read_text()
    (own_folder / "tokenizer" / "tokenizer.json").write_text(kept.replace('"Describe"', '"Describf"'))
    with pytest.raises(InputError, match="got 102 tokens before the prompt; expected 95"):
        load(own_folder).token_spans("a dog")
    (own_folder / "tokenizer" / "tokenizer.json").write_text(kept)
    edit(own_folder, "tokenizer/tokenizer_config.json", padding_side="left")
    with pytest.raises(InputError, match="pads on the left"):
        load(own_folder).token_spans("a dog")
    (own_folder / "tokenizer" / "tokenizer.json").write_text("nonsense")
    with pytest.raises(InputError, match="tokenizer cannot be loaded"):
        load(own_folder).token_spans("a dog")


def test_the_published_size_needs_no_card(own_folder: Path) -> None:
    (own_folder / CARD_NAME).unlink()
    with pytest.raises(InputError, match=r"not the published HunyuanVideo.*mannerism\.json"):
        load_base(str(own_folder))
    edit(own_folder, "transformer/config.json", text_embed_dim=4096, num_attention_heads=24)
    spec = load(own_folder).spec
    rules = spec.frame_rules
    assert (rules.height, rules.width, rules.num_frames, rules.frames_per_second) == (720, 1280, 129, 24.0)
    assert (rules.size_multiple, rules.frame_multiple, spec.sigma_shift, spec.guidance_scale) == (16, 4, 7.0, 6.0)
