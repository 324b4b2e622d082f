"""What `loras` tells of a file: the names, ranks and scales that were written into it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline_lib.errors import InputError
from pipeline_lib.models.folder import PipelineFolder
from pipeline_lib.models.lora_export import write_lora
from pipeline_lib.models.lora_look import look_at_lora, why_unfit
from pipeline_lib.models.lora_names import Layers
from pipeline_lib.models.triple import LayerFactors, LoraTriple
from pipeline_lib.models.wan_lora import WAN_NAMES
from pipeline_lib.storage.tensors import save_tensors
from tests.models.test_lora_import import ALPHA, FORMATS, denoiser, layers, shared, written

__all__ = ["denoiser", "layers", "shared"]
PAIR = {"lora_A.weight": torch.ones(2, 24), "lora_B.weight": torch.ones(24, 2)}


@pytest.mark.parametrize(
    ("form", "names"), [("diffusers", "diffusers"), ("comfyui", "ComfyUI"), ("kohya", "kohya"), ("peft", "PEFT")]
)
def test_every_format_is_told(form: str, names: str, layers: Layers, tiny_folder: Path, tmp_path: Path) -> None:
    file = FORMATS[form](layers)
    path = written(tmp_path / "x.safetensors", file)
    look = look_at_lora(path)
    assert (look.names, look.family) == ((names,), "wan")
    assert (look.layers, look.keys, look.size) == (len(layers), len(file[0]), path.stat().st_size)
    assert (look.ranks, look.alphas, look.scales) == ((3,), (ALPHA,), (ALPHA / 3,))
    assert look.dtypes == ("float32",)
    assert set(look.targets.values()) == {2}, "one in each of two blocks"
    assert len(look.targets) == len(WAN_NAMES.names)
    assert why_unfit(path, PipelineFolder(tiny_folder)) == ""


def test_a_file_of_ours_says_its_family(layers: Layers, denoiser: nn.Module, tmp_path: Path) -> None:
    triple = LoraTriple({name: LayerFactors(up, down) for name, (down, up) in layers.items()}, "output", 3)
    look = look_at_lora(write_lora(triple, tmp_path / "x.safetensors", family="wan", provenance={"base": "here"}))
    assert look.names == ("ComfyUI",), "which diffusers reads too"
    assert (look.family, look.alphas, look.scales) == ("wan", (), (1.0,))
    assert look.metadata["mannerism.base"] == "here"


def test_a_lora_of_another_family_does_not_fit(tiny_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, {f"diffusion_model.double_blocks.0.img_attn_qkv.{end}": value for end, value in PAIR.items()})
    assert look_at_lora(path).family == "hunyuan or flux"
    assert "has a layer that this base does not have" in why_unfit(path, PipelineFolder(tiny_folder))


def test_strangers_words_are_fit_for_a_terminal(tmp_path: Path) -> None:
    path, header = tmp_path / "x.safetensors", {f"key {number}": "word" for number in range(100)}
    header |= {"ab\x1b[31m": "red\x1b[0m\n" + 1000 * "long"}
    save_tensors(path, {f"blocks.0.attn1.to_q.{end}": value for end, value in PAIR.items()}, header)
    told = look_at_lora(path).metadata
    assert len(told) == 40
    assert told["ab [31m"].startswith("red [0m long") and told["ab [31m"].endswith("(4008 letters)")


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({}, "no LoRA layers"),
        ({"blocks.0.attn1.to_q.lora_A.weight": torch.ones(2, 24)}, "lacks one half"),
        ({f"blocks.0.attn1.to_q.{end}": torch.nan * value for end, value in PAIR.items()}, "not finite"),
        ({"blocks.0.attn1.to_q.hada_w1_a": torch.ones(2)}, "LoHa"),
        ({f"lora_te_x.{end}": value for end, value in PAIR.items()}, "text encoder"),
    ],
)
def test_what_is_no_lora_is_refused(tensors: dict[str, torch.Tensor], said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, tensors)
    with pytest.raises(InputError, match=said):
        look_at_lora(path)
