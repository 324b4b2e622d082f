"""FLOPs and sizes: the counter against the closed formula, networks against the published parameter counts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.families import count_line
from benchmarks.family_sizes import SIZES
from benchmarks.flop_formula import Shape, step_flops
from benchmarks.flops import count_size, count_step, model_flops_used
from benchmarks.loops import add_lora
from benchmarks.random_base import open_base, write_folder
from pipeline_lib.models.base import BaseModel
from pipeline_lib.models.families import family_of
from pipeline_lib.models.folder import PipelineFolder
from pipeline_lib.steps.speed import peak_flops

CPU, META = torch.device("cpu"), torch.device("meta")
RANK = 32
# One of each architecture, and of each width: the others differ in numbers of the table alone.
REAL = ("wan-1.3b", "ltx-2b", "hunyuan-13b", "cogvideox-5b")
TINY = ("wan-1.3b", "ltx-2b", "hunyuan-13b", "cogvideox-2b")


def formula(base: BaseModel, text_rows: int, depth: dict[str, int], rank: int) -> tuple[int, int]:
    """What the closed formula says of a base, with another number of blocks."""
    config: Any = dict(base.experts()[0][1].config)
    channels, frames, height, width = base.spec.latent_shape()
    patch = 1 if base.spec.name == "ltx" else 2
    shape = Shape(frames * (height // patch) * (width // patch), text_rows, channels)
    return step_flops(base.spec.name, {**config, **depth}, shape, rank)


@pytest.mark.parametrize("name", REAL)
def test_the_counter_agrees_with_the_formula_at_real_size(name: str, tmp_path: Path) -> None:
    size = SIZES[name]
    counted = count_size(size, RANK).flops
    shallow = open_base(write_folder(size, tmp_path, transformer=dict.fromkeys(size.depth, 1)), META, torch.bfloat16)
    forward, step = formula(shallow, size.text_rows, dict(size.depth), RANK)
    assert (counted.forward, counted.step) == (forward, step)
    assert 2 < counted.step / counted.forward < 3
    assert counted.step + 0.98 * counted.forward < counted.recomputed < counted.step + counted.forward


@pytest.mark.parametrize("name", TINY)
def test_the_counter_agrees_with_the_formula_on_a_computed_step(name: str, tmp_path: Path) -> None:
    size = SIZES[name]
    base = open_base(size.tiny(tmp_path), CPU, torch.float32)
    if base.spec.name == "wan":
        base.padding.enabled = False  # as on a GPU
    add_lora(base, 2)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernel recomputes a product in its backward pass
        passes = count_step(base, size.text_rows)
    forward, backward = (one.get_total_flops() for one in passes)
    assert (forward, forward + backward) == formula(base, size.text_rows, {}, 2)


def test_recomputation_costs_what_is_said_of_it(tmp_path: Path) -> None:
    """Counted with blocks that really are recomputed: a step and the blocks' forward pass once more."""
    size = SIZES["ltx-2b"]
    path = write_folder(size, tmp_path, transformer={"num_layers": 2})
    base = open_base(path, META, torch.bfloat16)
    add_lora(base, RANK)
    plain = sum(one.get_total_flops() for one in count_step(base, size.text_rows))
    base.set_gradient_checkpointing(True)
    recomputing = sum(one.get_total_flops() for one in count_step(base, size.text_rows))
    two = count_size(dataclasses.replace(size, depth={"num_layers": 2}), RANK).flops
    assert two.step == plain
    assert two.recomputed == pytest.approx(recomputing, rel=1e-3)


@pytest.mark.parametrize("name", SIZES)
def test_the_networks_have_the_published_numbers_of_parameters(name: str, tmp_path: Path) -> None:
    size = SIZES[name]
    folder = PipelineFolder(write_folder(size, tmp_path))
    with META:
        denoiser = folder.class_of("transformer").from_config(folder.config("transformer"))
    count = sum(value.numel() for value in denoiser.parameters())
    assert count / 1e9 == pytest.approx(size.billions, rel=0.005)
    assert all(denoiser.config[stack] == blocks for stack, blocks in size.depth.items())
    base = family_of(folder).open(folder, name, META, torch.bfloat16)
    rules = base.spec.frame_rules
    assert (rules.num_frames, rules.height, rules.width) == size.video


def test_encoders_have_the_published_numbers_of_parameters(tmp_path: Path) -> None:
    """UMT5-XXL's encoder has 5.68 thousand millions, T5-v1.1-XXL's 4.76, Llama 3 8B without its head 7.50."""
    for name, billions in (("wan-14b", 5.68), ("ltx-2b", 4.76), ("hunyuan-13b", 7.50)):
        base = open_base(write_folder(SIZES[name], tmp_path / name), META, torch.bfloat16)
        count = sum(value.numel() for value in base._text_encoder.parameters())
        assert count / 1e9 == pytest.approx(billions, rel=0.01)


def test_two_experts_weigh_twice_and_compute_once() -> None:
    one, two = count_line(SIZES["wan-14b"], RANK), count_line(SIZES["wan-a14b"], RANK)
    assert two["step_tflop"] == one["step_tflop"]
    assert two["memory_floor_gigabytes"] == pytest.approx(one["memory_floor_gigabytes"] + 31.1, abs=0.2)
    assert one["goal"] == "≤ 8 s"
    assert one["needs"].startswith("MFU 0.54")


def test_mfu_is_of_the_devices_dense_peak() -> None:
    assert peak_flops("NVIDIA H200") == peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_flops("Quadro") is None
    assert model_flops_used(989e12, 2.0, "NVIDIA H200") == 0.5
    assert model_flops_used(989e12, 2.0, "x86_64") is None
