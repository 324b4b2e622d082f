"""An exported LoRA loads whole in the stock loaders and makes the same latents."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline_lib.errors import InputError
from pipeline_lib.models.lora_export import read_lora, write_lora, write_peft
from pipeline_lib.models.lora_import import import_lora
from pipeline_lib.models.triple import Basis
from pipeline_lib.models.wan import WanBase
from pipeline_lib.models.wan_lora import WAN_NAMES
from tests.models.factors import merge_by_hand, random_triple

CALL: dict[str, Any] = {
    "height": 32,
    "width": 32,
    "num_frames": 5,
    "num_inference_steps": 3,
    "guidance_scale": 3.0,
    "output_type": "latent",
}


def stock(folder: Path) -> WanPipeline:
    pipeline = WanPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latents(pipeline: WanPipeline) -> Tensor:
    frames = pipeline("a red dog", generator=torch.Generator().manual_seed(3), **CALL).frames
    assert isinstance(frames, Tensor)
    return frames


@pytest.mark.parametrize("basis", ["output", "input"])
@pytest.mark.parametrize(("identity", "motion"), [(1.0, 1.0), (0.6, 1.4), (1.0, 0.0)])
def test_the_stock_loader_gives_the_latents_of_merged_weights(
    tiny_folder: Path, base: WanBase, tmp_path: Path, basis: Basis, identity: float, motion: float
) -> None:
    triple = random_triple(base.transformer, base.spec.lora_targets, basis=basis)
    path = write_lora(
        triple, tmp_path / "lora.safetensors", family="wan", identity=identity, motion=motion, provenance={}
    )
    merged = stock(tiny_folder)
    untouched = latents(merged)
    merge_by_hand(merged.transformer, triple, identity, motion)
    expected = latents(merged)

    loaded = stock(tiny_folder)
    loaded.load_lora_weights(path)
    torch.testing.assert_close(latents(loaded), expected, atol=1e-4, rtol=0)
    assert (expected - untouched).abs().max() > 0.05  # the comparison means something
    scales = [layer.scaling[name] for layer in lora_layers(loaded) for name in layer.scaling]
    assert scales == [1.0] * len(triple.layers)


def lora_layers(pipeline: WanPipeline) -> list[Any]:
    return [module for module in pipeline.transformer.modules() if hasattr(module, "lora_A")]


def test_no_key_is_dropped_and_nothing_warns(
    tiny_folder: Path, base: WanBase, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    triple = random_triple(base.transformer, base.spec.lora_targets)
    path = write_lora(triple, tmp_path / "lora.safetensors", family="wan", provenance={})
    pipeline = stock(tiny_folder)
    logger = logging.getLogger("diffusers")
    logger.addHandler(caplog.handler)  # diffusers' logger does not propagate
    try:
        pipeline.load_lora_weights(path, adapter_name="concept")
    finally:
        logger.removeHandler(caplog.handler)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    file = load_file(path)
    live = {
        f"{name}.{side}": getattr(module, side)["concept"].weight
        for name, module in pipeline.transformer.named_modules()
        if hasattr(module, "lora_A")
        for side in ("lora_A", "lora_B")
    }
    assert len(live) == len(file) == 2 * len(triple.layers) == 2 * 2 * len(base.spec.lora_targets)
    for path_and_side, weight in live.items():
        module, _, side = path_and_side.rpartition(".")
        assert torch.equal(weight, file[f"diffusion_model.{WAN_NAMES.original_name(module)}.{side}.weight"])


def test_every_key_is_one_that_comfyui_reads(base: WanBase, tmp_path: Path) -> None:
    triple = random_triple(base.transformer, base.spec.lora_targets)
    path = write_lora(triple, tmp_path / "lora.safetensors", family="wan", provenance={})
    known = WAN_NAMES.comfy_keys(base.transformer)
    assert set(load_file(path)) <= known
    assert "diffusion_model.blocks.2.self_attn.q.lora_A.weight" not in known  # the tiny base has two blocks
    assert "transformer.blocks.0.attn1.to_q.lora_A.weight" not in known


def test_strengths_of_zero_are_the_base_exactly(tiny_folder: Path, base: WanBase, tmp_path: Path) -> None:
    for basis in ("output", "input"):
        triple = random_triple(base.transformer, base.spec.lora_targets, basis=basis)  # type: ignore[arg-type]
        path = write_lora(
            triple, tmp_path / f"{basis}.safetensors", family="wan", identity=0.0, motion=0.0, provenance={}
        )
        pipeline = stock(tiny_folder)
        expected = latents(pipeline)
        pipeline.load_lora_weights(path)
        assert torch.equal(latents(pipeline), expected)


def test_the_header_tells_where_it_came_from_and_no_scale(base: WanBase, tmp_path: Path) -> None:
    triple = random_triple(base.transformer, base.spec.lora_targets)
    path = write_lora(
        triple, tmp_path / "lora.safetensors", family="wan", motion=0.5, provenance={"method": "x", "seed": 3}
    )
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
        assert not [key for key in file.keys() if "alpha" in key]  # noqa: SIM118
    assert header == {
        "format": "pt",
        "mannerism.method": "x",
        "mannerism.seed": "3",
        "mannerism.family": "wan",
        "mannerism.identity_strength": "1.0",
        "mannerism.motion_strength": "0.5",
        "mannerism.rank": "3",
    }
    assert list(tmp_path.iterdir()) == [path]


def test_reading_gives_back_what_was_written(base: WanBase, tmp_path: Path) -> None:
    triple = random_triple(base.transformer, base.spec.lora_targets)
    path = write_lora(triple, tmp_path / "lora.safetensors", family="wan", motion=0.5, provenance={"method": "x"})
    read = read_lora(path, "wan", base.transformer)
    expected = triple.merged(1.0, 0.5)
    assert set(read.layers) == set(expected)
    for module, (down, up) in expected.items():
        assert torch.equal(read.layers[module][0], down) and torch.equal(read.layers[module][1], up)
    assert read.provenance["method"] == "x"


NAME = "diffusion_model.blocks.0.self_attn.q"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "no LoRA layers"),
        ({"transformer.blocks.0.attn1.to_q.lora_A.weight": torch.zeros(2, 24)}, "none of our exports"),
        ({f"{NAME}.alpha": torch.tensor(2.0)}, "none of our exports"),
        ({f"{NAME}.lora_A.weight": torch.zeros(2, 24)}, "one half"),
        ({f"{NAME}.lora_A.weight": torch.zeros(2, 24), f"{NAME}.lora_B.weight": torch.zeros(24, 3)}, "wrong shapes"),
        ({f"{NAME}.lora_A.weight": torch.zeros(24), f"{NAME}.lora_B.weight": torch.zeros(24, 1)}, "wrong shapes"),
        (
            {f"{NAME}.lora_A.weight": torch.full((2, 24), torch.nan), f"{NAME}.lora_B.weight": torch.zeros(24, 2)},
            "finite",
        ),
        (
            {
                f"{NAME}.lora_A.weight": torch.zeros(2, 24, dtype=torch.int32),
                f"{NAME}.lora_B.weight": torch.zeros(24, 2),
            },
            "finite",
        ),
        ({f"{NAME}.lora_A.weight": torch.zeros(2, 8), f"{NAME}.lora_B.weight": torch.zeros(24, 2)}, "does not fit"),
        (
            {
                f"{NAME.replace('.0.', '.9.')}.lora_A.weight": torch.zeros(2, 24),
                f"{NAME.replace('.0.', '.9.')}.lora_B.weight": torch.zeros(24, 2),
            },
            "does not fit",
        ),
    ],
)
def test_files_that_are_not_ours_are_refused(
    base: WanBase, tmp_path: Path, tensors: dict[str, Tensor], message: str
) -> None:
    path = tmp_path / "lora.safetensors"
    save_file(tensors, path)
    with pytest.raises(InputError, match=message):
        read_lora(path, "wan", base.transformer)


@pytest.mark.parametrize("name", ["lora.pt", "lora.ckpt", "lora.bin", "lora.pth"])
def test_pickles_are_refused_unopened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(InputError, match="pickle"):
        read_lora(tmp_path / name, "wan")


@pytest.mark.parametrize("basis", ["output", "input"])
@torch.no_grad()
def test_peft_reads_its_own_format(tiny_folder: Path, base: WanBase, tmp_path: Path, basis: Basis) -> None:
    triple = random_triple(base.transformer, base.spec.lora_targets, basis=basis)
    (folder,) = write_peft(triple, tmp_path / "dog", identity=0.6, motion=1.4)
    noisy, timestep, text = torch.randn(1, 16, 2, 4, 4), torch.tensor([500.0]), torch.randn(1, 512, 24)
    merged = stock(tiny_folder).transformer
    merge_by_hand(merged, triple, 0.6, 1.4)
    expected = merged(noisy, timestep, text, return_dict=False)[0]
    loaded: Any = PeftModel.from_pretrained(stock(tiny_folder).transformer, folder)
    torch.testing.assert_close(loaded(noisy, timestep, text, return_dict=False)[0], expected, atol=1e-5, rtol=0)
    layers = import_lora(folder / "adapter_model.safetensors", "wan", base.transformer).layers
    assert set(layers) == set(triple.layers)


def test_a_file_as_large_as_a_model_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "lora.safetensors").touch()
    os.truncate(tmp_path / "lora.safetensors", 8 * 2**30 + 1)  # a hole: it takes no room
    with pytest.raises(InputError, match=r"lora\.safetensors is too large"):
        read_lora(tmp_path / "lora.safetensors", "wan")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "lora.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"lora\.safetensors cannot be read"):
        read_lora(tmp_path / "lora.safetensors", "wan")
    with pytest.raises(InputError, match="no LoRA file"):
        read_lora(tmp_path / "absent.safetensors", "wan")


def test_other_families_and_layers_have_no_names(base: WanBase, tmp_path: Path) -> None:
    triple = random_triple(base.transformer, base.spec.lora_targets)
    with pytest.raises(InputError, match="family"):
        write_lora(triple, tmp_path / "lora.safetensors", family="mochi", provenance={})
    with pytest.raises(InputError, match="proj_out"):
        WAN_NAMES.original_name("proj_out")
