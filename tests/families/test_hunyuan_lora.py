"""An exported HunyuanVideo LoRA loads whole in the stock loader, at the published width and at the tiny one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoPipeline, HunyuanVideoTransformer3DModel
from diffusers.loaders.lora_conversion_utils import _convert_hunyuan_video_lora_to_diffusers
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline_lib.errors import InputError
from pipeline_lib.models.adapter import Adapter, AdapterSettings
from pipeline_lib.models.hunyuan import HunyuanBase
from pipeline_lib.models.hunyuan_lora import HUNYUAN_NAMES, WIDTH
from pipeline_lib.models.hunyuan_spec import lora_targets
from pipeline_lib.models.load import load_base
from pipeline_lib.models.lora_export import read_lora, write_lora
from pipeline_lib.models.lora_import import import_lora
from pipeline_lib.models.lora_names import COMFY_SUFFIXES
from pipeline_lib.models.tiny_hunyuan import POOLED_WIDTH, TEXT_WIDTH, tiny_hunyuan
from pipeline_lib.models.triple import Basis, LayerFactors, LoraTriple
from tests.models.factors import merge_by_hand, random_triple

MLP = 32  # of the wide model; the published one has 4 × 3072
CALL: dict[str, Any] = {
    "height": 32,
    "width": 32,
    "num_frames": 5,
    "num_inference_steps": 2,
    "output_type": "latent",
    "max_sequence_length": 16,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hunyuan(tmp_path_factory.mktemp("hunyuan"))


@pytest.fixture(scope="module")
def base(folder: Path) -> HunyuanBase:
    loaded = load_base(str(folder))
    assert isinstance(loaded, HunyuanBase)
    return loaded


@pytest.fixture(scope="module")
def wide() -> HunyuanVideoTransformer3DModel:
    """As wide as the published model, whose width diffusers' reader takes for granted; all else is small."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return HunyuanVideoTransformer3DModel(
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=0,
            mlp_ratio=MLP / WIDTH,
            text_embed_dim=TEXT_WIDTH,
            pooled_projection_dim=POOLED_WIDTH,
        ).eval()


def stock(folder: Path, **parts: Any) -> HunyuanVideoPipeline:
    pipeline = HunyuanVideoPipeline.from_pretrained(folder, **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latents(pipeline: HunyuanVideoPipeline) -> Tensor:
    frames = pipeline("a red dog", generator=torch.Generator().manual_seed(3), **CALL).frames
    assert isinstance(frames, Tensor)
    return frames


def wide_layers(rank: int = 2) -> dict[str, tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(5)
    layers = {}
    for path in lora_targets(1, 1):
        inner = MLP if path.endswith("net.2") else WIDTH + MLP if path.endswith("proj_out") else WIDTH
        outer = MLP if path.endswith(("net.0.proj", "proj_mlp")) else WIDTH
        layers[path] = (torch.randn(rank, inner, generator=draw), torch.randn(outer, rank, generator=draw))
    return layers


@contextmanager
def no_warning(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    logger = logging.getLogger("diffusers")
    logger.addHandler(caplog.handler)  # diffusers' logger does not propagate
    try:
        yield
    finally:
        logger.removeHandler(caplog.handler)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def check_loaded(pipeline: HunyuanVideoPipeline, layers: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Every layer is there, at scale 1, and computes with our factors."""
    live: dict[str, Any] = {
        name: module for name, module in pipeline.transformer.named_modules() if hasattr(module, "lora_A")
    }
    assert live.keys() == layers.keys()
    for path, (down, up) in layers.items():
        module = live[path]
        assert module.scaling["concept"] == 1.0
        check_product((module.lora_A["concept"].weight, module.lora_B["concept"].weight), (down, up))


@torch.no_grad()
def check_product(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    """Both make the same of a few vectors (whole products of this width take seconds)."""
    vectors = torch.randn(ours[0].shape[1], 4, generator=torch.Generator().manual_seed(9))
    products = [up @ (down @ vectors) for down, up in (ours, theirs)]
    torch.testing.assert_close(products[0], products[1], atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_the_published_width_goes_through_the_stock_loader(
    folder: Path, wide: HunyuanVideoTransformer3DModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    triple = random_triple(wide, lora_targets(1, 1), rank=2)
    small = {path: LayerFactors(f.basis * 0.3, f.coefficients * 0.3) for path, f in triple.layers.items()}
    triple = LoraTriple(small, triple.basis, triple.rank, triple.scale)
    path = write_lora(triple, tmp_path / "lora.safetensors", family="hunyuan", provenance={})
    pipeline = stock(folder, transformer=wide)
    untouched = latents(pipeline)
    with no_warning(caplog):
        pipeline.load_lora_weights(path, adapter_name="concept")
    check_loaded(pipeline, triple.merged())
    ours = latents(pipeline)
    pipeline.unload_lora_weights()
    merge_by_hand(wide, triple, 1.0, 1.0)
    expected = latents(pipeline)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
    assert (expected - untouched).abs().max() > 0.05  # the comparison means something


def test_the_published_width_has_fused_names_that_comfyui_reads(wide: HunyuanVideoTransformer3DModel) -> None:
    tensors = HUNYUAN_NAMES.write(wide_layers())
    assert set(tensors) <= HUNYUAN_NAMES.comfy_keys(wide)
    assert len(tensors) == 2 * (8 + 2)
    shapes = {key.removeprefix("transformer."): tuple(tensor.shape) for key, tensor in tensors.items()}
    assert shapes["double_blocks.0.img_attn_qkv.lora_A.weight"] == (6, WIDTH)
    assert shapes["double_blocks.0.txt_attn_qkv.lora_B.weight"] == (3 * WIDTH, 6)
    assert shapes["single_blocks.0.linear1.lora_A.weight"] == (8, WIDTH)
    assert shapes["single_blocks.0.linear1.lora_B.weight"] == (3 * WIDTH + MLP, 8)
    assert shapes["single_blocks.0.linear2.lora_A.weight"] == (2, WIDTH + MLP)


def test_comfyui_has_no_model_of_another_width(base: HunyuanBase, wide: HunyuanVideoTransformer3DModel) -> None:
    assert HUNYUAN_NAMES.comfy_keys(base.transformer) == set()
    known = HUNYUAN_NAMES.comfy_keys(wide)
    assert {f"transformer.double_blocks.0.img_attn_qkv{end}" for end in COMFY_SUFFIXES} <= known
    assert not [key for key in known if ".1." in key and "double_blocks" in key]
    assert "transformer.transformer_blocks.0.attn.to_q.lora_A.weight" not in known


def test_a_fused_layer_computes_what_its_parts_do() -> None:
    layers = wide_layers()
    tensors = HUNYUAN_NAMES.write(layers)
    stem = "transformer.single_blocks.0.linear1"
    paths = [f"single_transformer_blocks.0.{name}" for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
    up = tensors[f"{stem}.lora_B.weight"]
    rows = up.split([WIDTH, WIDTH, WIDTH, MLP])
    for path, part in zip(paths, rows, strict=True):
        check_product((tensors[f"{stem}.lora_A.weight"], part), layers[path])


def test_the_stock_conversion_knows_every_key() -> None:
    layers = wide_layers()
    converted = _convert_hunyuan_video_lora_to_diffusers(HUNYUAN_NAMES.write(layers))
    assert set(converted) == {f"transformer.{path}.{side}.weight" for path in layers for side in ("lora_A", "lora_B")}


def test_reading_is_the_inverse_of_writing() -> None:
    layers = wide_layers()
    check_same(HUNYUAN_NAMES.read(HUNYUAN_NAMES.write(layers), "a file"), layers)
    still = {path: (down, torch.zeros_like(up)) for path, (down, up) in layers.items()}
    check_same(HUNYUAN_NAMES.read(HUNYUAN_NAMES.write(still), "a file"), still)
    assert HUNYUAN_NAMES.read({}, "a file") == HUNYUAN_NAMES.write({}) == {}


@pytest.mark.parametrize(
    "kept", ["single_transformer_blocks.0.proj_out", "transformer_blocks.0.attn.to_k", "proj_mlp", "attn.to_v"]
)
def test_some_layers_alone(kept: str) -> None:
    """The stock conversion needs all parts of a fused layer, and an `img_attn_qkv` to be called at all."""
    layers = {path: pair for path, pair in wide_layers().items() if path.endswith(kept)}
    tensors = HUNYUAN_NAMES.write(layers)
    check_same(HUNYUAN_NAMES.read(tensors, "a file"), layers)
    converted = _convert_hunyuan_video_lora_to_diffusers(dict(tensors))
    for path, (down, up) in layers.items():
        a, b = (converted[f"transformer.{path}.lora_{side}.weight"] for side in "AB")
        check_product((a, b), (down, up))


def check_same(read: Mapping[str, tuple[Tensor, Tensor]], written: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    assert read.keys() == written.keys()
    for path, (down, up) in written.items():
        assert torch.equal(read[path][0], down) and torch.equal(read[path][1], up)


@pytest.mark.parametrize("rank", [4, 6])
def test_fused_layers_of_other_trainers_share_one_factor(rank: int) -> None:
    down, up = torch.randn(rank, WIDTH), torch.randn(3 * WIDTH, rank)
    stem = "transformer.double_blocks.3.txt_attn_qkv"
    layers = HUNYUAN_NAMES.read({f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}, "a file")
    assert list(layers) == [f"transformer_blocks.3.attn.add_{letter}_proj" for letter in "qkv"]
    for pair, part in zip(layers.values(), up.split(WIDTH), strict=True):
        check_product(pair, (down, part))


def test_names_of_other_trainers_are_read(wide: HunyuanVideoTransformer3DModel, tmp_path: Path) -> None:
    """Fused layers under ComfyUI's and kohya's names, with an alpha, beside diffusers' own names."""
    down, up = torch.randn(4, WIDTH), torch.randn(3 * WIDTH + MLP, 4)
    own = torch.randn(4, WIDTH), torch.randn(WIDTH, 4)
    file = {
        "lora_unet_single_blocks_0_linear1.lora_down.weight": down,
        "lora_unet_single_blocks_0_linear1.lora_up.weight": up,
        "lora_unet_single_blocks_0_linear1.alpha": torch.tensor(2.0),
        "diffusion_model.double_blocks.0.img_attn_proj.lora_A.weight": own[0],
        "diffusion_model.double_blocks.0.img_attn_proj.lora_B.weight": own[1],
        "transformer.transformer_blocks.0.attn.to_q.lora_A.weight": own[0] * 2,
        "transformer.transformer_blocks.0.attn.to_q.lora_B.weight": own[1] * 2,
    }
    save_file(file, tmp_path / "other.safetensors")
    layers = import_lora(tmp_path / "other.safetensors", "hunyuan", wide).layers
    parts = [f"single_transformer_blocks.0.{name}" for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
    assert layers.keys() == {*parts, "transformer_blocks.0.attn.to_out.0", "transformer_blocks.0.attn.to_q"}
    for path, part in zip(parts, up.split([WIDTH, WIDTH, WIDTH, MLP]), strict=True):
        check_product(layers[path], (down, part / 2))


@pytest.mark.parametrize("basis", ["output", "input"])
def test_the_tiny_width_goes_through_the_stock_loader(
    folder: Path, base: HunyuanBase, tmp_path: Path, basis: Basis, caplog: pytest.LogCaptureFixture
) -> None:
    triple = random_triple(base.transformer, base.spec.lora_targets, basis=basis)
    assert len(triple.layers) == len(base.spec.lora_targets) == 2 * (12 + 5)
    path = write_lora(triple, tmp_path / "lora.safetensors", family="hunyuan", identity=0.6, motion=1.4, provenance={})
    merged, loaded = stock(folder), stock(folder)
    untouched = latents(merged)
    merge_by_hand(merged.transformer, triple, 0.6, 1.4)
    with no_warning(caplog):
        loaded.load_lora_weights(path, adapter_name="concept")
    check_loaded(loaded, triple.merged(0.6, 1.4))
    expected = latents(merged)
    torch.testing.assert_close(latents(loaded), expected, atol=1e-4, rtol=0)
    assert (expected - untouched).abs().max() > 0.05
    check_same(read_lora(path, "hunyuan", base.transformer).layers, triple.merged(0.6, 1.4))
    assert not [key for key in load_file(path) if "alpha" in key]


def test_strengths_of_zero_are_the_base_exactly(folder: Path, base: HunyuanBase, tmp_path: Path) -> None:
    triple = random_triple(base.transformer, base.spec.lora_targets)
    path = write_lora(triple, tmp_path / "lora.safetensors", family="hunyuan", identity=0, motion=0, provenance={})
    pipeline = stock(folder)
    expected = latents(pipeline)
    pipeline.load_lora_weights(path)
    assert torch.equal(latents(pipeline), expected)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"double_blocks.0.img_attn_qkv.lora_A.weight": torch.zeros(2, 4)}, "none of our exports"),
        ({"transformer.double_blocks.0.img_attn_qkv.alpha": torch.tensor(2.0)}, "none of our exports"),
        ({"transformer.double_blocks.0.img_mod.linear.lora_A.weight": torch.zeros(2, 4)}, "none of our exports"),
        ({"transformer.single_transformer_blocks.0.attn.to_out.0.lora_A.weight": torch.zeros(2, 4)}, "none of our"),
        ({"transformer.double_blocks.0.img_attn_qkv.lora_A.weight": torch.zeros(2, 4)}, "one half"),
        (
            {
                "transformer.double_blocks.0.img_attn_qkv.lora_A.weight": torch.zeros(3, 24),
                "transformer.double_blocks.0.img_attn_qkv.lora_B.weight": torch.zeros(72, 3),
            },
            "wrong size",
        ),
        (
            {
                "transformer.double_blocks.0.img_mlp.fc1.lora_A.weight": torch.zeros(3, 24),
                "transformer.double_blocks.0.img_mlp.fc1.lora_B.weight": torch.zeros(48, 3),
                "transformer.transformer_blocks.0.ff.net.0.proj.lora_A.weight": torch.zeros(3, 24),
                "transformer.transformer_blocks.0.ff.net.0.proj.lora_B.weight": torch.zeros(48, 3),
            },
            "twice",
        ),
        (
            {
                "transformer.transformer_blocks.9.attn.to_q.lora_A.weight": torch.zeros(3, 24),
                "transformer.transformer_blocks.9.attn.to_q.lora_B.weight": torch.zeros(24, 3),
            },
            "does not fit",
        ),
    ],
)
def test_files_that_are_not_ours_are_refused(
    base: HunyuanBase, tmp_path: Path, tensors: dict[str, Tensor], message: str
) -> None:
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(InputError, match=message):
        read_lora(tmp_path / "lora.safetensors", "hunyuan", base.transformer)


@pytest.mark.parametrize(
    "path",
    ["proj_out", "context_embedder.token_refiner.refiner_blocks.0.attn.to_q", "transformer_blocks.0.norm1.linear"],
)
def test_layers_without_a_name_are_refused(path: str) -> None:
    with pytest.raises(InputError, match="cannot be exported"):
        HUNYUAN_NAMES.write({path: (torch.zeros(2, WIDTH), torch.zeros(WIDTH, 2))})


def test_parts_of_different_ranks_are_refused() -> None:
    layers = wide_layers()
    layers["transformer_blocks.0.attn.to_q"] = (torch.zeros(3, WIDTH), torch.zeros(WIDTH, 3))
    with pytest.raises(InputError, match=r"img_attn_qkv have different ranks; got 2, 3"):
        HUNYUAN_NAMES.write(layers)


def test_an_adapter_takes_exactly_the_targets(folder: Path) -> None:
    """None of the text refiner's layers, whose paths end alike, and not the model's own `proj_out`."""
    base: Any = load_base(str(folder))
    noisy, sigma, text = torch.randn(1, 16, 2, 4, 4), torch.tensor([0.5]), base.encode_text(["a dog"])
    before = base.velocity(noisy, sigma, text)
    adapter = Adapter.attach(base.transformer, AdapterSettings(rank=2, targets=base.spec.lora_targets), seed=0)
    assert set(adapter.factors("basis")) == set(base.spec.lora_targets)
    assert torch.equal(base.velocity(noisy, sigma, text), before)
