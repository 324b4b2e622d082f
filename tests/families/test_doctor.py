"""What `doctor` counts of every family without reading a weight: it is the loaded base's, and it is there at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline_lib.models.folder import CARD_NAME
from pipeline_lib.models.load import load_base
from pipeline_lib.models.tiny_cogvideox import tiny_cogvideox
from pipeline_lib.registry import choose_method
from pipeline_lib.steps.advice import Need
from pipeline_lib.steps.cost import Estimate
from tests.families.test_matrix import FOLDERS
from tests.steps.tiny import small_clip, tiny_config

PHASES = ["encode", "train-identity", "train-motion", "samples"]


def estimate_of(folder: Path, tmp_path: Path) -> Estimate:
    config = tiny_config(folder, [small_clip(tmp_path / "clip.mp4")])
    return Estimate(config, choose_method(config), load_base(str(folder)), "cpu", "float32")


def stored(*modules: Any) -> int:
    return sum(value.nbytes for module in modules for value in (*module.parameters(), *module.buffers()))


@pytest.mark.parametrize("name", FOLDERS)
def test_weights_phases_work_and_advice(name: str, tmp_path: Path) -> None:
    folder = FOLDERS[name][1](tmp_path / "base")
    estimate, base = estimate_of(folder, tmp_path), load_base(str(folder))
    cost = estimate.cost()
    denoisers = [denoiser for _, denoiser in base.experts()]
    assert sum(size for part, size in cost.weights.items() if part.startswith("transformer")) == stored(*denoisers)
    encoders: Any = base
    assert cost.weights["text_encoder"] == stored(encoders._text_encoder)
    assert cost.weights["vae"] == stored(encoders._vae)
    assert [phase.name for phase in cost.phases] == PHASES
    assert all(work.flops > 0 and work.memory > 0 for work in cost.work.values())
    assert cost.work["train-motion"].flops > cost.work["train-identity"].flops, "clips are larger than frames"
    advice = estimate.advice(Need(device=1, host=1))
    told = {key for change in advice for key in change.settings}
    assert {"gradient_checkpointing", "micro_batch", "storage", "swapped_blocks"} <= told


def test_a_published_cogvideox_has_no_card_and_is_counted(tmp_path: Path) -> None:
    folder = tiny_cogvideox(tmp_path / "base")
    (folder / CARD_NAME).unlink()
    told = folder / "transformer" / "config.json"
    small = {"sample_height": 4, "sample_width": 4, "sample_frames": 9}
    told.write_text(json.dumps({**json.loads(told.read_text()), **small}))
    estimate = estimate_of(folder, tmp_path)
    assert estimate.cost().work["pass"].flops > 0
    assert torch.tensor(load_base(str(folder)).spec.sigma_shift).isfinite()
