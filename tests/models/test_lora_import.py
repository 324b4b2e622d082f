"""LoRA files of others: what they hold is what the stock loader makes of them, or a clear error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save, save_file
from torch import Tensor, nn

from pipeline_lib.errors import InputError
from pipeline_lib.models.load import load_base
from pipeline_lib.models.lora_export import LoraFile
from pipeline_lib.models.lora_import import METADATA, import_lora
from pipeline_lib.models.lora_look import look_at_lora
from pipeline_lib.models.lora_names import Layers
from pipeline_lib.models.triple import LayerFactors, LoraTriple
from pipeline_lib.models.wan import WanBase
from pipeline_lib.models.wan_lora import WAN_NAMES
from tests.models.factors import merge_by_hand, random_triple

ALPHA = 1.5  # of rank 3: a scale of a half
CALL: dict[str, Any] = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2, "guidance_scale": 3.0}

File = tuple[dict[str, Tensor], dict[str, str]]


def diffusers_file(layers: Layers) -> File:
    """As ``WanPipeline.save_lora_weights`` writes it: alpha stands in the header alone."""
    tensors = {}
    for path, (down, up) in layers.items():
        tensors |= {f"transformer.{path}.lora_A.weight": down, f"transformer.{path}.lora_B.weight": up}
    told = {"r": 3, "lora_alpha": ALPHA, "target_modules": sorted(layers)}
    return tensors, {METADATA: json.dumps({f"transformer.{name}": value for name, value in told.items()})}


def comfy_file(layers: Layers) -> File:
    """As trainers for ComfyUI write it: original names, an alpha a layer."""
    tensors = {}
    for path, (down, up) in layers.items():
        name = f"diffusion_model.{WAN_NAMES.original_name(path)}"
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        tensors[f"{name}.alpha"] = torch.tensor(ALPHA)
    return tensors, {}


def kohya_file(layers: Layers) -> File:
    """As musubi-tuner writes it: original names with underscores."""
    tensors = {}
    for path, (down, up) in layers.items():
        name = "lora_unet_" + WAN_NAMES.original_name(path).replace(".", "_")
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        tensors[f"{name}.alpha"] = torch.tensor(ALPHA)
    return tensors, {"ss_network_dim": "3"}


def peft_file(layers: Layers) -> File:
    """As ``PeftModel.save_pretrained`` writes it; its alpha stands in a file beside it, see :func:`written`."""
    tensors = {}
    for path, (down, up) in layers.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = down
        tensors[f"base_model.model.{path}.lora_B.weight"] = up
    return tensors, {}


FORMATS: dict[str, Callable[[Layers], File]] = {
    "diffusers": diffusers_file,
    "comfyui": comfy_file,
    "kohya": kohya_file,
    "peft": peft_file,
}


@pytest.fixture(scope="module")
def shared(tiny_folder: Path) -> WanBase:
    loaded = load_base(str(tiny_folder))
    assert isinstance(loaded, WanBase)
    return loaded


@pytest.fixture(scope="module")
def denoiser(shared: WanBase) -> nn.Module:
    module: nn.Module = shared.transformer
    return module


@pytest.fixture(scope="module")
def layers(shared: WanBase) -> Layers:
    return random_triple(shared.transformer, shared.spec.lora_targets, residual=False).merged()


def written(path: Path, file: File) -> Path:
    (path.parent / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": ALPHA, "peft_type": "LORA"}))
    save_file({name: tensor.clone() for name, tensor in file[0].items()}, path, metadata=file[1] or None)
    return path


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_same_layers(form: str, layers: Layers, denoiser: nn.Module, tmp_path: Path) -> None:
    read = import_lora(written(tmp_path / "x.safetensors", FORMATS[form](layers)), "wan", denoiser)
    assert set(read.layers) == set(layers)
    for path, (down, up) in layers.items():
        torch.testing.assert_close(read.layers[path][0], down)
        torch.testing.assert_close(read.layers[path][1], up * (ALPHA / 3))


@pytest.mark.parametrize("form", ["diffusers", "comfyui", "kohya"])
def test_it_is_what_the_stock_loader_makes_of_the_file(
    form: str, layers: Layers, denoiser: nn.Module, tiny_folder: Path, tmp_path: Path
) -> None:
    path = written(tmp_path / "x.safetensors", FORMATS[form](layers))

    def latents(pipeline: WanPipeline) -> Tensor:
        pipeline.set_progress_bar_config(disable=True)
        draw = torch.Generator().manual_seed(3)
        frames: Tensor = pipeline("a red dog", generator=draw, output_type="latent", **CALL).frames
        return frames

    loaded = WanPipeline.from_pretrained(tiny_folder)
    loaded.load_lora_weights(path)
    merged = WanPipeline.from_pretrained(tiny_folder)
    before = latents(merged)
    found = import_lora(path, "wan", denoiser).layers
    factors = {name: LayerFactors(up, down) for name, (down, up) in found.items()}
    merge_by_hand(merged.transformer, LoraTriple(factors, "output", 3), 1.0, 1.0)
    torch.testing.assert_close(latents(merged), latents(loaded), atol=1e-4, rtol=0)
    assert (latents(merged) - before).abs().max() > 0.02


def test_alpha_patterns_of_the_header_are_followed(layers: Layers, denoiser: nn.Module, tmp_path: Path) -> None:
    tensors, _ = diffusers_file(layers)
    told = {"transformer.lora_alpha": 3, "transformer.alpha_pattern": {"blocks.0.attn1.to_q": 6}}
    read = import_lora(written(tmp_path / "x.safetensors", (tensors, {METADATA: json.dumps(told)})), "wan", denoiser)
    for path, (_, up) in layers.items():
        torch.testing.assert_close(read.layers[path][1], up * (2.0 if path == "blocks.0.attn1.to_q" else 1.0))


def test_an_adapted_base_reads_the_same(shared: WanBase, layers: Layers, tmp_path: Path) -> None:
    from pipeline_lib.models.adapter import Adapter

    path = written(tmp_path / "x.safetensors", kohya_file(layers))
    factors = {name: LayerFactors(up, down) for name, (down, up) in layers.items()}
    adapter = Adapter.from_triple(shared.transformer, LoraTriple(factors, "output", 3))
    try:
        assert set(import_lora(path, "wan", shared.transformer).layers) == set(layers)
    finally:
        adapter.detach()


NAME = "blocks.0.attn1.to_q"
PAIR = {f"{NAME}.lora_A.weight": torch.zeros(2, 24), f"{NAME}.lora_B.weight": torch.zeros(24, 2)}


@pytest.mark.parametrize(
    ("extra", "header", "message"),
    [
        ({f"{NAME}.dora_scale": torch.ones(24)}, {}, "DoRA"),
        ({f"{NAME}.hada_w1_a": torch.ones(2)}, {}, "LoHa"),
        ({f"{NAME}.lokr_w1": torch.ones(2)}, {}, "LoKr"),
        ({f"{NAME}.diff": torch.ones(24, 24)}, {}, "full difference"),
        ({"lora_te_x.lora_down.weight": torch.ones(2, 2)}, {}, "text encoder"),
        ({"blocks.7.attn1.to_q.lora_A.weight": torch.ones(2, 24)}, {}, "does not have"),
        ({f"transformer.{name}": value for name, value in PAIR.items()}, {}, "twice"),
        ({f"{NAME}.lora_down.weight": torch.ones(2, 24)}, {}, "twice"),
        ({f"{NAME}.alpha": torch.tensor(torch.nan)}, {}, "alpha"),
        ({f"{NAME}.alpha": torch.ones(2)}, {}, "alpha"),
        ({f"{NAME}.alpha": torch.ones(1, dtype=torch.complex64)}, {}, "alpha"),
        ({"step": torch.tensor(3)}, {}, "none of a LoRA's"),
        ({}, {METADATA: "{"}, "cannot be read"),
        ({}, {METADATA: "[]"}, "cannot be read"),
        ({}, {METADATA: '{"transformer.use_dora": true}'}, "DoRA"),
        ({}, {METADATA: '{"transformer.r": 4, "transformer_2.r": 4}'}, "several models"),
        ({}, {METADATA: '{"transformer.lora_alpha": 1e999}'}, "no number"),
        ({}, {METADATA: '{"alpha_pattern": {"(a+)+": 2}}'}, "pattern"),
    ],
)
def test_what_cannot_be_read_is_refused(
    extra: dict[str, Tensor], header: dict[str, str], message: str, denoiser: nn.Module, tmp_path: Path
) -> None:
    path = written(tmp_path / "x.safetensors", ({**PAIR, **extra}, header))
    with pytest.raises(InputError, match=message):
        import_lora(path, "wan", denoiser)


def test_peft_without_its_settings_is_refused(layers: Layers, denoiser: nn.Module, tmp_path: Path) -> None:
    path = written(tmp_path / "x.safetensors", peft_file(layers))
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(InputError, match="adapter_config"):
        import_lora(path, "wan", denoiser)


def test_rank_stabilised_scales(denoiser: nn.Module, tmp_path: Path) -> None:
    tensors = {name: torch.ones_like(value) for name, value in PAIR.items()}
    told = json.dumps({"lora_alpha": 4, "use_rslora": True})
    read = import_lora(written(tmp_path / "x.safetensors", (tensors, {METADATA: told})), "wan", denoiser)
    torch.testing.assert_close(read.layers[NAME][1], torch.full((24, 2), 4 / 2**0.5))


# A valid file of each format is broken in one of many ways; whatever still loads must be the file's own content.


def _rename(tensors: dict[str, Tensor], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(tensors)))
    place = data.draw(st.integers(0, len(key) - 1))
    letter = data.draw(st.sampled_from("abzAB019._-/ é"))
    tensors[key[:place] + letter + key[place + data.draw(st.integers(0, 1)) :]] = tensors.pop(key)


def _drop(tensors: dict[str, Tensor], data: st.DataObject) -> None:
    del tensors[data.draw(st.sampled_from(sorted(tensors)))]


def _swap(tensors: dict[str, Tensor], data: st.DataObject) -> None:
    one, other = (data.draw(st.sampled_from(sorted(tensors))) for _ in range(2))
    tensors[one], tensors[other] = tensors[other], tensors[one]


def _reshape(tensors: dict[str, Tensor], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(tensors)))
    old = tensors[key] if tensors[key].dim() else tensors[key][None]
    turned = old.mT if old.dim() > 1 else old
    tensors[key] = data.draw(st.sampled_from([turned, old.flatten(), old[None], old[:1], old[:0]]))


def _retype(tensors: dict[str, Tensor], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(tensors)))
    kinds = [torch.int8, torch.int64, torch.bool, torch.float16, torch.float8_e4m3fn, torch.float64]
    tensors[key] = tensors[key].to(data.draw(st.sampled_from(kinds)))


def _spoil(tensors: dict[str, Tensor], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(tensors)))
    if not tensors[key].numel() or not tensors[key].is_floating_point():
        return
    tensors[key] = tensors[key].contiguous().clone()
    tensors[key].view(-1)[0] = data.draw(st.sampled_from([torch.nan, torch.inf, -torch.inf]))


def _double(tensors: dict[str, Tensor], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(tensors)))
    tensors[data.draw(st.sampled_from(["transformer.", "diffusion_model.", "x", "lora_unet_"])) + key] = tensors[key]


MUTATIONS = [_rename, _drop, _swap, _reshape, _retype, _spoil, _double]


def _content(file: File, form: str) -> dict[str, Tensor]:
    """The update of every layer, by what the format's name of it says, read independently of the library."""
    tensors, header = file
    names = {
        "diffusers": lambda path: f"transformer.{path}",
        "comfyui": lambda path: f"diffusion_model.{WAN_NAMES.original_name(path)}",
        "kohya": lambda path: "lora_unet_" + WAN_NAMES.original_name(path).replace(".", "_"),
        "peft": lambda path: f"base_model.model.{path}",
    }
    down, up = ("lora_down", "lora_up") if form in ("comfyui", "kohya") else ("lora_A", "lora_B")
    found = {}
    for block in range(2):
        for layer in WAN_NAMES.names:
            path = f"blocks.{block}.{layer}"
            stem = names[form](path)
            first, second = tensors.get(f"{stem}.{down}.weight"), tensors.get(f"{stem}.{up}.weight")
            if first is not None and second is not None:
                alpha = (
                    ALPHA
                    if METADATA in header or form == "peft"
                    else float(tensors.get(f"{stem}.alpha", first.shape[0]))
                )
                found[path] = second.float() @ first.float() * (alpha / first.shape[0])
    return found


@settings(
    max_examples=520, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), form=st.sampled_from(sorted(FORMATS)))
def test_a_broken_file_never_crashes_and_never_loads_wrong(
    data: st.DataObject, form: str, layers: Layers, denoiser: nn.Module, tmp_path: Path
) -> None:
    tensors, header = FORMATS[form](layers)
    tensors = dict(tensors)
    for _ in range(data.draw(st.integers(1, 3))):
        data.draw(st.sampled_from(MUTATIONS))(tensors, data)
        if not tensors:
            break
    path = tmp_path / "x.safetensors"
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": ALPHA}))
    raw = save({name: value.contiguous().clone() for name, value in tensors.items()}, metadata=header or None)
    path.write_bytes(raw)
    read = _read(path, denoiser)
    if read is None:
        return
    expected = _content((load(raw), header), form)
    for name, (down, up) in read.layers.items():
        if name in expected:
            torch.testing.assert_close(up @ down, expected[name], atol=1e-5, rtol=1e-5)
    pairs = sum(not key.endswith(".alpha") for key in tensors)
    assert 2 * len(read.layers) == pairs  # nothing of the file was left out


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), form=st.sampled_from(sorted(FORMATS)))
def test_broken_bytes_never_crash(
    data: st.DataObject, form: str, layers: Layers, denoiser: nn.Module, tmp_path: Path
) -> None:
    tensors, header = FORMATS[form](layers)
    raw = bytearray(save({name: value.clone() for name, value in tensors.items()}, metadata=header or None))
    size = int.from_bytes(raw[:8], "little")
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            raw[data.draw(st.integers(0, 8 + size - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "x.safetensors"
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": ALPHA}))
    path.write_bytes(bytes(raw))
    read = _read(path, denoiser)
    assert read is None or read.layers


def _read(path: Path, denoiser: nn.Module) -> LoraFile | None:
    look = read = None
    try:
        look = look_at_lora(path)
        read = import_lora(path, "wan", denoiser)
    except InputError as error:
        assert str(path) in str(error)
    assert read is None or (look is not None and look.layers == len(read.layers))
    return read
