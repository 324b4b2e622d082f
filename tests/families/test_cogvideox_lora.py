"""CogVideoX's LoRA files: whole in the stock loader, known to ComfyUI in the other format."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import CogVideoXPipeline
from safetensors.torch import load_file
from torch import Tensor

from pipeline_lib.errors import InputError
from pipeline_lib.models.base import BaseModel
from pipeline_lib.models.cogvideox_lora import COGVIDEOX_COMFY_NAMES, COGVIDEOX_NAMES
from pipeline_lib.models.load import load_base
from pipeline_lib.models.lora_export import lora_tensors, read_lora, write_lora
from pipeline_lib.models.tiny_cogvideox import tiny_cogvideox
from pipeline_lib.models.triple import Basis, LoraTriple
from tests.models.factors import merge_by_hand, random_triple


@pytest.fixture(scope="module", params=[True, False], ids=["rotary", "sines"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_cogvideox(tmp_path_factory.mktemp("cogvideox"), rotary=request.param)


@pytest.fixture
def base(folder: Path) -> BaseModel:
    return load_base(str(folder))


@pytest.fixture
def denoiser(base: BaseModel) -> Any:
    return base.experts()[0][1]


def stock(folder: Path) -> CogVideoXPipeline:
    pipeline = CogVideoXPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latents(pipeline: CogVideoXPipeline) -> Tensor:
    frames = pipeline(
        "a red dog",
        height=32,
        width=32,
        num_frames=9,
        num_inference_steps=3,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
    ).frames
    assert isinstance(frames, Tensor)
    return frames


@pytest.mark.parametrize("basis", ["output", "input"])
@pytest.mark.parametrize(("identity", "motion"), [(1.0, 1.0), (0.6, 1.4)])
def test_the_stock_loader_gives_the_latents_of_merged_weights(
    folder: Path, base: BaseModel, denoiser: Any, tmp_path: Path, basis: Basis, identity: float, motion: float
) -> None:
    triple = random_triple(denoiser, base.spec.lora_targets, basis=basis)
    path = write_lora(
        triple, tmp_path / "lora.safetensors", family="cogvideox", identity=identity, motion=motion, provenance={}
    )
    merged = stock(folder)
    untouched = latents(merged)
    merge_by_hand(merged.transformer, triple, identity, motion)
    expected = latents(merged)
    loaded = stock(folder)
    loaded.load_lora_weights(path)
    torch.testing.assert_close(latents(loaded), expected, atol=1e-4, rtol=0)
    assert (expected - untouched).abs().max() > 0.05  # the comparison means something
    layers = [module for module in loaded.transformer.modules() if hasattr(module, "lora_A")]
    assert [scale for layer in layers for scale in layer.scaling.values()] == [1.0] * len(triple.layers)


def test_no_key_is_dropped_and_nothing_warns(
    folder: Path, base: BaseModel, denoiser: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    triple = random_triple(denoiser, base.spec.lora_targets)
    path = write_lora(triple, tmp_path / "lora.safetensors", family="cogvideox", provenance={})
    pipeline = stock(folder)
    logger = logging.getLogger("diffusers")
    logger.addHandler(caplog.handler)  # diffusers' logger does not propagate
    try:
        pipeline.load_lora_weights(path, adapter_name="concept")
    finally:
        logger.removeHandler(caplog.handler)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    file = load_file(path)
    live = {
        f"transformer.{name}.{side}.weight": getattr(module, side)["concept"].weight
        for name, module in pipeline.transformer.named_modules()
        if hasattr(module, "lora_A")
        for side in ("lora_A", "lora_B")
    }
    assert len(triple.layers) == 2 * len(base.spec.lora_targets)
    assert set(live) == set(file) and all(torch.equal(live[key], file[key]) for key in file)


def test_reading_gives_back_what_was_written(base: BaseModel, denoiser: Any, tmp_path: Path) -> None:
    triple = random_triple(denoiser, base.spec.lora_targets)
    path = write_lora(triple, tmp_path / "lora.safetensors", family="cogvideox", motion=0.5, provenance={"method": "x"})
    read = read_lora(path, "cogvideox", denoiser)
    expected = triple.merged(1.0, 0.5)
    assert set(read.layers) == set(expected)
    for module, (down, up) in expected.items():
        assert torch.equal(read.layers[module][0], down) and torch.equal(read.layers[module][1], up)
    assert read.provenance["method"] == "x"


def test_comfyui_reads_none_of_the_keys_that_diffusers_reads(base: BaseModel, denoiser: Any) -> None:
    triple = random_triple(denoiser, base.spec.lora_targets)
    assert COGVIDEOX_NAMES.comfy_keys(denoiser) == set()
    assert not set(lora_tensors(triple, family="cogvideox")) & COGVIDEOX_COMFY_NAMES.comfy_keys(denoiser)


def comfy_file(triple: LoraTriple) -> dict[str, Tensor]:
    return COGVIDEOX_COMFY_NAMES.write(triple.merged(1.0, 1.0))


def test_every_key_of_the_other_format_is_one_that_comfyui_reads(base: BaseModel, denoiser: Any) -> None:
    tensors = comfy_file(random_triple(denoiser, base.spec.lora_targets))
    known = COGVIDEOX_COMFY_NAMES.comfy_keys(denoiser)
    assert len(tensors) == 2 * 2 * len(base.spec.lora_targets) and set(tensors) <= known
    assert "diffusion_model.blocks.1.attn_out.lora_B.weight" in tensors
    assert "diffusion_model.blocks.2.q.lora_A.weight" not in known  # the tiny base has two blocks
    # Every layer with a weight has a name there: one of ComfyUI's for one of diffusers'.
    weights = [name for name in denoiser.state_dict() if name.endswith(".weight")]
    assert len(known) == 4 * len(weights)


def test_the_other_format_comes_back(base: BaseModel, denoiser: Any) -> None:
    triple = random_triple(denoiser, base.spec.lora_targets)
    read = COGVIDEOX_COMFY_NAMES.read(comfy_file(triple), "a file")
    expected = triple.merged(1.0, 1.0)
    assert set(read) == set(expected)
    for path, (down, up) in expected.items():
        assert torch.equal(read[path][0], down) and torch.equal(read[path][1], up)


@pytest.mark.parametrize(
    "key", ["diffusion_model.transformer_blocks.0.q", "diffusion_model.blocks.0.norm1.linear", "transformer.blocks.0.q"]
)
def test_keys_of_no_format_are_refused(key: str) -> None:
    halves = {f"{key}.lora_A.weight": torch.zeros(2, 32), f"{key}.lora_B.weight": torch.zeros(32, 2)}
    for names in (COGVIDEOX_COMFY_NAMES, COGVIDEOX_NAMES):
        with pytest.raises(InputError, match="none of our exports"):
            names.read(halves, "a file")
