"""A LoRA of someone else on a base: what the stock loader makes of it at that strength, or one clear line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from pipeline_lib.errors import InputError
from pipeline_lib.models.base import BaseModel
from pipeline_lib.models.economy import Economy
from pipeline_lib.models.load import load_base
from pipeline_lib.models.lora_export import write_lora, write_peft
from pipeline_lib.models.lora_file import lora_digest, used_loras
from pipeline_lib.models.lora_names import Layers
from pipeline_lib.models.lora_use import bare_denoisers, check_loras, layers_on
from pipeline_lib.models.tiny import tiny_wan, tiny_wan_a14b
from pipeline_lib.models.tiny_ltx import tiny_ltx
from pipeline_lib.models.triple import SECOND_EXPERT, LayerFactors, LoraTriple
from pipeline_lib.records import LoraUse
from pipeline_lib.storage.tensors import save_tensors
from tests.models.factors import random_triple

FOLDERS: dict[str, Callable[[Path], Path]] = {"wan": tiny_wan, "ltx": tiny_ltx, "a14b": tiny_wan_a14b}
STRENGTH = 0.8


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FOLDERS[request.param](tmp_path_factory.mktemp("family"))


def lora_of(base: BaseModel, seed: int = 7, scale: float = 0.5) -> LoraTriple:
    """A LoRA of one denoiser; its layers are the same in both of two."""
    (_, denoiser), *_ = base.experts()
    drawn = random_triple(denoiser, base.spec.lora_targets, residual=False)
    draw = torch.Generator().manual_seed(seed)
    layers = {
        path: LayerFactors(factors.basis, torch.randn(factors.coefficients.shape, generator=draw) * 0.3)
        for path, factors in drawn.layers.items()
    }
    return LoraTriple(layers, drawn.basis, drawn.rank, scale=scale)


def lora_file(base: BaseModel, path: Path, seed: int = 7, scale: float = 0.5, **provenance: str) -> Path:
    return write_lora(lora_of(base, seed, scale), path, family=base.spec.name, provenance=provenance)


def latents(pipeline: Any, base: BaseModel) -> Tensor:
    pipeline.set_progress_bar_config(disable=True)
    rules = base.spec.frame_rules
    draw = torch.Generator().manual_seed(3)
    made: Tensor = pipeline(
        "a red dog",
        generator=draw,
        output_type="latent",
        height=rules.height,
        width=rules.width,
        num_frames=rules.num_frames,
        num_inference_steps=3,
        guidance_scale=3.0,
    ).frames
    return made


def with_loras(folder: Path, *uses: LoraUse | str, **options: Any) -> BaseModel:
    base = load_base(str(folder), **options)
    base.loras = used_loras([LoraUse.model_validate(use) for use in uses])
    check_loras(base)
    return base


def test_a_base_with_a_lora_is_the_stock_pipeline_with_it_at_that_strength(folder: Path, tmp_path: Path) -> None:
    bare = load_base(str(folder))
    style, other = lora_file(bare, tmp_path / "style.safetensors"), lora_file(bare, tmp_path / "b.safetensors", seed=8)
    stock: Any = DiffusionPipeline.from_pretrained(folder)
    names = {"style": STRENGTH, "other": -0.5}
    for name, path in (("style", style), ("other", other)):
        stock.load_lora_weights(path, adapter_name=name)
        if len(bare.experts()) == 2:
            stock.load_lora_weights(path, adapter_name=name, load_into_transformer_2=True)
    stock.set_adapters(list(names), list(names.values()))
    mine = with_loras(folder, f"{style}:{STRENGTH}", f"{other}:-0.5")
    found = latents(mine.pipeline(), mine)
    torch.testing.assert_close(found, latents(stock, mine), atol=1e-4, rtol=0)
    assert (found - latents(bare.pipeline(), bare)).abs().max() > 0.02, "a test of nothing"
    assert mine.digest == bare.digest


def test_each_expert_gets_its_own(tmp_path: Path) -> None:
    folder = tiny_wan_a14b(tmp_path / "base")
    bare = load_base(str(folder))
    high = lora_file(bare, tmp_path / "high.safetensors", expert="high_noise")
    low = lora_file(bare, tmp_path / "low.safetensors", seed=8, expert="low_noise")
    mine = with_loras(folder, f"high={high}:{STRENGTH}", f"low={low}")
    stock: Any = DiffusionPipeline.from_pretrained(folder)
    stock.load_lora_weights(high, adapter_name="x")
    stock.load_lora_weights(low, adapter_name="x", load_into_transformer_2=True)
    stock.transformer.set_adapters(["x"], [STRENGTH])
    torch.testing.assert_close(latents(mine.pipeline(), mine), latents(stock, mine), atol=1e-4, rtol=0)
    for wrong in (str(high), f"low={high}"):
        with pytest.raises(InputError, match=r"high\.safetensors was trained for the high-noise expert.*high="):
            with_loras(folder, wrong)


@torch.no_grad()
def test_it_holds_with_all_that_saves_memory(folder: Path, tmp_path: Path) -> None:
    style = lora_file(load_base(str(folder)), tmp_path / "style.safetensors")
    plain = with_loras(folder, str(style))
    noisy = torch.randn(2, plain.spec.latent_channels, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    text = plain.encode_text(["a dog", ""])
    sigma = torch.tensor([0.95, 0.3])
    expected = plain.velocity(noisy, sigma, text)
    swapped = with_loras(folder, str(style), economy=Economy(swapped_blocks=1))
    torch.testing.assert_close(swapped.velocity(noisy, sigma, text), expected, atol=1e-6, rtol=1e-5)
    apart = (load_base(str(folder)).velocity(noisy, sigma, text) - expected).norm()
    for economy, dtype in ((Economy(storage="fp8"), torch.float32), (Economy(), torch.bfloat16)):
        small = with_loras(folder, str(style), economy=economy, dtype=dtype)
        assert (small.velocity(noisy, sigma, text) - expected).norm() < 0.3 * apart, (economy, dtype)


def test_bare_denoisers_have_all_layers_and_no_weights(folder: Path) -> None:
    base = load_base(str(folder))
    for module, (_, live) in zip(bare_denoisers(base.folder).values(), base.experts(), strict=True):
        assert {name: value.shape for name, value in module.named_parameters()} == {
            name: value.shape for name, value in live.named_parameters()
        }
        assert all(value.is_meta for value in module.parameters())


def test_the_digest_is_of_what_a_file_says_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    base = load_base(str(folder))
    one = lora_file(base, tmp_path / "one.safetensors")
    copy = Path(shutil.copy(one, tmp_path / "elsewhere.safetensors"))
    assert lora_digest(one) == lora_digest(copy) != lora_digest(lora_file(base, tmp_path / "two.safetensors", seed=8))
    (link := tmp_path / "link.safetensors").symlink_to(one)
    before = lora_digest(link)
    link.unlink()
    link.symlink_to(tmp_path / "two.safetensors")
    assert lora_digest(link) != before
    (peft, *_) = write_peft(lora_of(base), tmp_path / "peft")
    weights, settings = peft / "adapter_model.safetensors", peft / "adapter_config.json"
    before = lora_digest(weights)
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "lora_alpha": 7}))
    assert lora_digest(weights) != before, "PEFT keeps its scale in the other file"


def test_a_file_that_changes_under_a_run_is_an_error(folder: Path, tmp_path: Path) -> None:
    bare = load_base(str(folder))
    base = with_loras(folder, str(lora_file(bare, tmp_path / "a.safetensors")))
    lora_file(bare, tmp_path / "b.safetensors", seed=8)
    shutil.copy(tmp_path / "b.safetensors", tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"a\.safetensors was changed"):
        base.experts()


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt", "folder"])
def test_what_is_no_lora_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.ckpt").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    said = {"a.safetensors": "no LoRA file at", "a.ckpt": "pickle", "folder": "folder, not a LoRA"}[name]
    with pytest.raises(InputError, match=said) as error:
        used_loras([LoraUse(path=str(tmp_path / name))])
    assert str(tmp_path / name) in str(error.value)


def test_a_lora_of_another_family_says_of_which(tmp_path: Path) -> None:
    wan, ltx = tiny_wan(tmp_path / "wan"), tiny_ltx(tmp_path / "ltx")
    ours = lora_file(load_base(str(ltx)), tmp_path / "ours.safetensors")
    with pytest.raises(InputError, match=r"ours\.safetensors is a LoRA of the family ltx; expected wan"):
        with_loras(wan, str(ours))
    with pytest.raises(InputError, match=r"for the high-noise expert, but .* has one denoiser"):
        with_loras(ltx, f"high={ours}")
    for key, family in {
        "diffusion_model.transformer_blocks.0.attn2.to_q": "ltx or cogvideox",
        "diffusion_model.double_blocks.0.img_attn_qkv": "hunyuan or flux",
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": "an image model",
    }.items():
        foreign = tmp_path / "foreign.safetensors"
        pair = {f"{key}.lora_down.weight": torch.ones(2, 24), f"{key}.lora_up.weight": torch.ones(24, 2)}
        save_tensors(foreign, pair)
        with pytest.raises(InputError, match=rf"foreign\.safetensors has a layer.*{key}, as in {family}.*use a plain"):
            with_loras(wan, str(foreign))


@pytest.mark.parametrize(
    ("maker", "key"),
    [
        (tiny_wan, "diffusion_model.patch_embedding"),
        (tiny_wan, "lora_unet_head_head"),
        (tiny_wan, "diffusion_model.blocks.0.self_attn.norm_q"),
        (tiny_ltx, "diffusion_model.transformer_blocks.0.attn1.q_norm"),
    ],
)
def test_layers_that_no_lora_of_ours_has_are_named(maker: Callable[[Path], Path], key: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, {f"{key}.lora_down.weight": torch.ones(2, 24), f"{key}.lora_up.weight": torch.ones(24, 2)})
    with pytest.raises(InputError, match=rf"x\.safetensors changes more than linear layers.*{key}.*use a plain LoRA"):
        with_loras(maker(tmp_path / "base"), str(path))


def test_a_linear_layer_outside_of_the_blocks_is_composed(tmp_path: Path) -> None:
    folder = tiny_ltx(tmp_path / "base")
    layer = bare_denoisers(load_base(str(folder)).folder)[""].get_submodule("proj_out")
    down, up = torch.randn(2, layer.in_features), torch.randn(layer.out_features, 2)
    for prefix in ("transformer.", "diffusion_model."):
        path = tmp_path / f"{prefix}safetensors"
        save_tensors(path, {f"{prefix}proj_out.lora_A.weight": down, f"{prefix}proj_out.lora_B.weight": up})
        base = with_loras(folder, str(path))
        (_, denoiser), *_ = base.experts()
        (_, bare), *_ = load_base(str(folder)).experts()
        change = denoiser.get_submodule("proj_out").weight - bare.get_submodule("proj_out").weight
        torch.testing.assert_close(change, up @ down, atol=1e-5, rtol=1e-5)


def test_ranks_of_several_files_add_up(tmp_path: Path) -> None:
    folder = tiny_wan_a14b(tmp_path / "base")
    base = load_base(str(folder))
    path = lora_file(base, tmp_path / "a.safetensors")
    uses = [f"{path}:0.5", f"low={path}:2"]
    loras = used_loras([LoraUse.model_validate(use) for use in uses])
    once = {path: up @ down for path, (down, up) in lora_of(base).merged().items()}
    for prefix, factor in (("", 0.5), (SECOND_EXPERT, 2.5)):
        found: Layers = layers_on(loras, "wan", prefix, bare_denoisers(base.folder)[prefix])
        for name, (down, up) in found.items():
            torch.testing.assert_close(up @ down, factor * once[name])
