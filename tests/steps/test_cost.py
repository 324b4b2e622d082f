"""What `doctor` counts, against real models that are loaded and real steps that are measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.memory import Row, measured, planned
from pipeline_lib.models.economy import Economy
from pipeline_lib.models.load import load_base
from pipeline_lib.models.nf4 import nf4_bytes, to_nf4
from pipeline_lib.models.tiny import tiny_wan, tiny_wan_a14b
from pipeline_lib.models.tiny_hunyuan import tiny_hunyuan
from pipeline_lib.models.tiny_ltx import tiny_ltx
from pipeline_lib.pocket.zoo import zoo_folder
from pipeline_lib.registry import choose_method
from pipeline_lib.sections import MethodSection, TrainingSection
from pipeline_lib.steps.advice import Need, Scope, advice
from pipeline_lib.steps.cost import Cost, Estimate
from pipeline_lib.steps.memory import Load, bytes_in_parts, denoiser_bytes, lesson_of
from pipeline_lib.steps.rehearsal import Rehearsal, Work
from pipeline_lib.steps.speed import Rate
from tests.steps.tiny import small_clip, small_images, tiny_config

SAVING = TrainingSection(gradient_checkpointing=True)
SCOPE = Scope(blocks=6, samples=8)


def real_bytes(folder: Path, dtype: torch.dtype, storage: Any = "full") -> int:
    base = load_base(str(folder), dtype=dtype, economy=Economy(storage=storage))
    (_, denoiser), *_ = base.experts()
    return sum(value.nbytes for value in (*denoiser.parameters(), *denoiser.buffers()))


def rehearsal_of(folder: Path, dtype: torch.dtype = torch.float32) -> Rehearsal:
    return Rehearsal(folder, load_base(str(folder)).spec, dtype, on_cpu=True)


def cost_of(folder: Path, clip: Path, dtype: str = "float32") -> Cost:
    config = tiny_config(folder, [clip])
    return Estimate(config, choose_method(config), load_base(str(folder)), "cpu", dtype).cost()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return small_clip(tmp_path / "clip.mp4")


@pytest.mark.parametrize("storage", ["full", "fp8"])
def test_weights_are_those_that_a_loaded_base_has(tiny_folder: Path, storage: Any) -> None:
    counted, _ = rehearsal_of(tiny_folder, torch.bfloat16).denoiser_bytes(storage)
    assert counted == real_bytes(tiny_folder, torch.bfloat16, storage)


def test_four_bits_are_counted_as_bitsandbytes_keeps_them() -> None:
    pytest.importorskip("bitsandbytes")
    block = torch.nn.Sequential(torch.nn.Linear(1024, 640, bias=False))
    to_nf4([block], torch.device("cpu"), torch.float32)
    weight: Any = block[0].weight
    scales = weight.quant_state
    assert weight.nbytes + scales.absmax.nbytes + scales.state2.absmax.nbytes == nf4_bytes(1024 * 640)


def test_four_bits_are_for_the_linear_layers_of_the_blocks(tiny_folder: Path) -> None:
    (full, _), (small, _) = (rehearsal_of(tiny_folder).denoiser_bytes(storage) for storage in ("full", "nf4"))
    (_, denoiser), *_ = load_base(str(tiny_folder)).experts()
    sizes = [m.weight.numel() for m in denoiser.get_submodule("blocks").modules() if isinstance(m, torch.nn.Linear)]
    assert full - small == sum(4 * size - nf4_bytes(size) for size in sizes)


def test_swapped_blocks_are_on_the_host_but_for_the_one_that_visits(tiny_folder: Path) -> None:
    rehearsal = rehearsal_of(tiny_folder)
    whole, (first, second) = rehearsal.denoiser_bytes("full")
    load = Load(stages=(), denoisers=2, encoders=(), cached=0, denoised=1, frames=1, on_cpu=False)
    swapped = SAVING.model_copy(update={"swapped_blocks": 2})
    assert first == second
    assert denoiser_bytes(rehearsal, load, SAVING) == (2 * whole, 0)
    assert denoiser_bytes(rehearsal, load, swapped) == (2 * (whole - first), 2 * 2 * first)


def test_a_base_in_parts_is_divided_but_for_what_a_pass_fetches(tmp_path: Path) -> None:
    config = tiny_wan(tmp_path / "base") / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_layers": 6}))
    rehearsal = rehearsal_of(tmp_path / "base")
    whole, blocks = rehearsal.denoiser_bytes("full")
    load = Load(stages=(), denoisers=1, encoders=(), cached=0, denoised=1, frames=1, on_cpu=False)
    held = bytes_in_parts(rehearsal, load, TrainingSection(processes=3, sharded=True))
    assert held == pytest.approx(whole / 3 + whole - 4 * blocks[0], abs=1)
    assert bytes_in_parts(rehearsal, load, TrainingSection(processes=3)) == whole


@pytest.mark.parametrize(
    "row",
    [
        Row(motion=False, checkpointing=False, micro_batch=0),
        Row(motion=True, checkpointing=True, micro_batch=0),
        Row(motion=True, checkpointing=False, micro_batch=1),
    ],
)
def test_a_step_of_the_pocket_base_takes_the_memory_that_was_counted(row: Row) -> None:
    folder, stage = zoo_folder("base"), planned(row)
    training = TrainingSection(gradient_checkpointing=row.checkpointing, micro_batch=row.micro_batch)
    rehearsal = rehearsal_of(folder)
    counted = rehearsal.training(lesson_of(stage, training)).memory + 4 * rehearsal.factors(stage)[2]
    taken, _ = measured(load_base(str(folder)), row, 1)
    assert counted == pytest.approx(taken, rel=0.15)


def test_hunyuan_needs_one_pass_a_step(tmp_path: Path, clip: Path) -> None:
    cost = cost_of(tiny_hunyuan(tmp_path / "base"), clip)
    prompts, models, steps = 2, 2, 3
    assert cost.forwards["samples"] == prompts * models * steps
    assert cost.forwards["prior"] == 2 * steps


def test_an_autoencoder_counts_in_its_own_dtype(tmp_path: Path, tiny_folder: Path, clip: Path) -> None:
    halves = cost_of(tiny_ltx(tmp_path / "ltx"), clip, "bfloat16"), cost_of(tiny_folder, clip, "bfloat16")
    wholes = cost_of(tmp_path / "ltx", clip), cost_of(tiny_folder, clip)
    assert halves[0].weights["vae"] < 0.6 * wholes[0].weights["vae"]
    assert halves[1].weights["vae"] == wholes[1].weights["vae"], "Wan's stays in float32"


def test_two_experts_are_there_twice(tmp_path: Path, tiny_folder: Path, clip: Path) -> None:
    one, two = cost_of(tiny_folder, clip), cost_of(tiny_wan_a14b(tmp_path / "base"), clip)
    assert two.weights["transformer_2"] == two.weights["transformer"] == one.weights["transformer"]
    assert two.adapter == 2 * one.adapter
    assert two.work["train-motion"].flops == pytest.approx(one.work["train-motion"].flops), "each sample sees one"


def test_steps_on_frames_are_counted_as_such(tmp_path: Path, tiny_folder: Path, clip: Path) -> None:
    def step(method: str, media: Path, **settings: float) -> Work:
        told = {"steps": 4, "batch": 2, "rank": 2, **settings}
        config = tiny_config(tiny_folder, [media])
        config = config.model_copy(update={"method": MethodSection(name=method, preset="portable", settings=told)})
        estimate = Estimate(config, choose_method(config), load_base(str(tiny_folder)), "cpu", "float32")
        return estimate.cost().work[f"train-{method}"]

    on_clips, on_frames = step("lora", clip), step("lora", small_images(tmp_path / "images"))
    assert on_frames.flops < 0.75 * on_clips.flops
    for share in (0.25, 0.75):
        mixed = step("dreammix", clip, frame_share=share)
        assert mixed.flops == pytest.approx(share * on_frames.flops + (1 - share) * on_clips.flops)
        assert mixed.moved == pytest.approx(share * on_frames.moved + (1 - share) * on_clips.moved)
    assert step("dreammix", tmp_path / "images", frame_share=0.5).flops == pytest.approx(on_frames.flops)


def test_frames_are_counted_once_and_each_crop_too(tiny_folder: Path, tmp_path: Path) -> None:
    small_images(tmp_path / "images", 3)

    def encoding(**settings: Any) -> float:
        config = tiny_config(
            tiny_folder, [tmp_path / "images"], *(f"method.settings.{k}={v}" for k, v in settings.items())
        )
        estimate = Estimate(config, choose_method(config), load_base(str(tiny_folder)), "cpu", "float32")
        return estimate.cost().coding["encode"].flops

    three, six = encoding(frames=3), encoding(frames=3, crops=1)
    assert encoding(frames=8) == encoding(frames=0) == three, "there are no more than three"
    assert encoding(frames=8, crops=1) == six
    assert encoding(frames=3, crops=2) - six == pytest.approx(six - three)
    assert six > three


def needs(device: int) -> Callable[[TrainingSection], Need]:
    """Bytes that halve with each thing that is switched on; a swapped block saves one."""

    def need(training: TrainingSection) -> Need:
        kept = 3 if training.keep_attention else 2
        size = device * kept // 4 if training.gradient_checkpointing else device
        size = size * training.micro_batch // 8 if training.micro_batch else size
        return Need(device=size - 10 * (training.storage == "fp8") - training.swapped_blocks, host=0)

    return need


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (800, {"gradient_checkpointing": True, "keep_attention": True}),
        (600, {"gradient_checkpointing": True}),
        (300, {"gradient_checkpointing": True, "micro_batch": 4}),
        (55, {"gradient_checkpointing": True, "micro_batch": 1, "storage": "fp8"}),
        (49, {"gradient_checkpointing": True, "micro_batch": 1, "storage": "fp8", "swapped_blocks": 3}),
    ],
)
def test_advice_is_in_the_order_of_what_it_costs(room: int, expected: dict[str, Any]) -> None:
    need = {800: 1000, 600: 1000, 300: 1000, 55: 992, 49: 992}[room]
    found = advice(TrainingSection(), Need(device=room, host=0), SCOPE, needs(need))
    assert found[-1].settings == expected
    assert [step.fits for step in found] == [False] * (len(found) - 1) + [True]
    order = [key for key in found[-1].settings if key != "keep_attention"]
    assert order == ["gradient_checkpointing", "micro_batch", "storage", "swapped_blocks"][: len(found)]


@pytest.mark.parametrize("scope", [SCOPE, Scope(blocks=6, samples=8, shardable=True)])
@pytest.mark.parametrize("settings", [{}, {"sharded": True}, {"storage": "fp8", "gradient_checkpointing": True}])
def test_advice_is_nothing_that_a_config_refuses(settings: dict[str, Any], scope: Scope) -> None:
    training = TrainingSection(processes=2, **settings)
    for change in advice(training, Need(device=1, host=0), scope, needs(992)):
        TrainingSection.model_validate({**training.model_dump(), **change.settings})


def test_where_there_is_room_what_costs_time_could_go() -> None:
    training = TrainingSection(gradient_checkpointing=True, micro_batch=2, storage="fp8")
    found = advice(training, Need(device=10_000, host=0), SCOPE, needs(1000))
    assert [set(change.settings) for change in found] == [
        {"storage"},
        {"gradient_checkpointing", "storage", "swapped_blocks"},
        {"keep_attention"},
        {"micro_batch"},
    ]
    assert not advice(TrainingSection(), Need(device=10_000, host=0), SCOPE, needs(1000))


def test_seconds_are_work_over_the_rate() -> None:
    rate = Rate(flops=1e9, bytes=1e8, origin="made up")
    assert rate.seconds(Work(memory=5.0, flops=2e9, moved=1e8)) == pytest.approx(3.0)
