"""One matrix over the families: a LoRA goes out whole to diffusers and ComfyUI, and comes in from other trainers."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, HunyuanVideoTransformer3DModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, load_file, save
from torch import Tensor, nn

from pipeline_lib.errors import InputError
from pipeline_lib.models.adapter import Adapter
from pipeline_lib.models.base import BaseModel
from pipeline_lib.models.families import Reader, family_named
from pipeline_lib.models.hunyuan_lora import WIDTH
from pipeline_lib.models.hunyuan_spec import lora_targets
from pipeline_lib.models.load import load_base
from pipeline_lib.models.lora_export import lora_files, lora_tensors, write_comfy_lora, write_lora
from pipeline_lib.models.lora_import import METADATA, import_lora
from pipeline_lib.models.lora_names import DOWN, UP
from pipeline_lib.models.lora_use import bare_denoisers
from pipeline_lib.models.triple import SECOND_EXPERT, LoraTriple
from tests.families.test_matrix import FOLDERS
from tests.models.factors import random_triple
from tests.models.test_lora_import import ALPHA, MUTATIONS

RANK = 3
FORMATS = ("diffusers", "comfyui", "kohya", "peft")


@pytest.fixture(scope="module", params=FOLDERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FOLDERS[name][1](tmp_path_factory.mktemp("family"))


def triple_of(denoisers: Mapping[str, nn.Module], targets: tuple[str, ...]) -> LoraTriple:
    """Random factors of every denoiser, as they come from training: of scale 1, other ones for each."""
    parts = {prefix: random_triple(denoiser, targets) for prefix, denoiser in denoisers.items()}
    layers = {
        prefix + path: dataclasses.replace(factors, basis=factors.basis * (0.75 if prefix else 0.5))
        for prefix, part in parts.items()
        for path, factors in part.layers.items()
    }
    return LoraTriple(layers, parts[""].basis, parts[""].rank)


def latents(pipeline: Any, base: BaseModel) -> Tensor:
    pipeline.set_progress_bar_config(disable=True)
    rules = base.spec.frame_rules
    made: Tensor = pipeline(
        "a red dog",
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
        height=rules.height,
        width=rules.width,
        num_frames=rules.num_frames,
        num_inference_steps=3,
        guidance_scale=3.0,
    ).frames
    return made


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What diffusers logs."""
    logger = logging.getLogger("diffusers")
    logger.addHandler(caplog.handler)  # diffusers' logger does not propagate
    yield caplog
    logger.removeHandler(caplog.handler)


def test_the_stock_pipeline_with_the_file_makes_the_latents_of_the_adapter(
    folder: Path, tmp_path: Path, heard: pytest.LogCaptureFixture
) -> None:
    base = load_base(str(folder))
    triple = triple_of(bare_denoisers(base.folder), base.spec.lora_targets)
    path = tmp_path / "lora.safetensors"
    write_lora(triple, path, family=base.spec.name, identity=1.0, motion=0.7, provenance={})
    stock: Any = DiffusionPipeline.from_pretrained(folder)
    bare = latents(stock, base)
    heard.clear()
    for prefix, file in lora_files(triple, path).items():
        stock.load_lora_weights(file, **({"load_into_transformer_2": True} if prefix == SECOND_EXPERT else {}))
    assert [told.getMessage() for told in heard.records if told.levelno >= logging.WARNING] == []
    adapter = Adapter.from_triple([denoiser for _, denoiser in base.experts()], triple)
    adapter.set_strengths(1.0, 0.7)
    expected = latents(base.pipeline(), base)
    torch.testing.assert_close(latents(stock, base), expected, atol=1e-4, rtol=0)
    assert (expected - bare).abs().max() > 0.02, "a test of nothing"


def published(name: str, folder: Path) -> tuple[dict[str, nn.Module], tuple[str, ...]]:
    """Denoisers without weights, as wide as the readers take for granted, and the layers of an adapter."""
    if name != "hunyuan":
        base = load_base(str(folder))
        return bare_denoisers(base.folder), base.spec.lora_targets
    with torch.device("meta"):
        wide = HunyuanVideoTransformer3DModel(
            num_layers=1, num_single_layers=1, num_refiner_layers=0, mlp_ratio=32 / WIDTH, text_embed_dim=8
        )
    return {"": wide}, lora_targets(1, 1)


def test_comfyui_knows_every_key(name: str, folder: Path, tmp_path: Path) -> None:
    family, (denoisers, targets) = FOLDERS[name][0], published(name, folder)
    triple = triple_of(denoisers, targets)
    path = tmp_path / "lora.safetensors"
    write_comfy_lora(triple, path, family=family, provenance={})
    files = lora_files(triple, path)
    assert set(files) == set(denoisers)
    for prefix, file in files.items():
        known = family_named(family).names_for("comfyui").comfy_keys(denoisers[prefix])
        keys = set(load_file(file))
        assert keys and keys <= known
        # One linear layer for one of diffusers', or a fused one for some: nothing was left out.
        read = import_lora(file, family, denoisers[prefix]).layers
        assert set(read) == set(triple.by_expert()[prefix].layers)


# Files of other trainers. What a file says of each layer is told by products with a few vectors, whole ones are large.

_FUSED = {
    "img_attn_qkv": ("to_q", "to_k", "to_v"),
    "txt_attn_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
    "linear1": ("to_q", "to_k", "to_v", "proj_mlp"),
}
"""HunyuanVideo's, in the order of their rows (`DoubleStreamBlock` and `SingleStreamBlock` of the original)."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A file in one trainer's names, and what each stem of it stands for: module paths, in the order of its rows."""

    tensors: dict[str, Tensor]
    header: dict[str, str]
    stems: dict[str, tuple[str, ...]]
    ends: tuple[str, str]


def case(form: str, family: str, denoiser: nn.Module, targets: tuple[str, ...]) -> Case:
    """A file whose layers all have the scale ALPHA / their rank, or the header's ALPHA / RANK."""
    layers = random_triple(denoiser, targets, residual=False, rank=RANK).merged()
    own = {path: {DOWN: down, UP: up} for path, (down, up) in layers.items()}
    if form in ("diffusers", "peft"):
        prefix = "transformer." if form == "diffusers" else "base_model.model."
        tensors = {f"{prefix}{path}{end}": value for path, pair in own.items() for end, value in pair.items()}
        told = json.dumps({"transformer.r": RANK, "transformer.lora_alpha": ALPHA}) if form == "diffusers" else ""
        return Case(tensors, {METADATA: told} if told else {}, {prefix + path: (path,) for path in own}, (DOWN, UP))
    tensors, stems = {}, {}
    for stem, paths, (down, up) in _native(family, layers):
        shown = stem if form == "comfyui" else "lora_unet_" + stem.partition(".")[2].replace(".", "_")
        stems[shown] = paths
        tensors |= {f"{shown}.lora_down.weight": down, f"{shown}.lora_up.weight": up}
        tensors[f"{shown}.alpha"] = torch.tensor(ALPHA)
    return Case(tensors, {}, stems, (".lora_down.weight", ".lora_up.weight"))


def _native(family: str, layers: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...], tuple[Tensor, Tensor]]]:
    """Layers by the names of the family's own code; fused ones share one factor, as their trainers have it."""
    reader: Reader = "comfyui"
    names, seen = family_named(family).names_for(reader), set[str]()
    draw = torch.Generator().manual_seed(1)
    for path, pair in layers.items():
        stem = [key for key in names.write({path: pair}) if key.endswith(DOWN)][-1].removesuffix(DOWN)
        if stem in seen:
            continue
        seen.add(stem)
        parts = _FUSED.get(stem.rpartition(".")[2], ()) if family == "hunyuan" else ()
        paths = tuple(one for part in parts for one in layers if same_block(one, path) and one.endswith(f".{part}"))
        if not paths:
            yield stem, (path,), pair
            continue
        rows = sum(len(layers[one][1]) for one in paths)
        yield stem, paths, (pair[0], torch.randn(rows, RANK, generator=draw) * 0.3)


def same_block(one: str, other: str) -> bool:
    return one.split(".")[:2] == other.split(".")[:2]


def said(found: Case, tensors: Mapping[str, Tensor], denoiser: nn.Module) -> dict[str, Tensor]:
    """What the tensors of a file make of a few vectors, by module path; read with nothing of the library's."""
    outs = {path: module.out_features for path, module in denoiser.named_modules() if isinstance(module, nn.Linear)}
    products: dict[str, Tensor] = {}
    for stem, paths in found.stems.items():
        down, up = (tensors.get(stem + end) for end in found.ends)
        if down is None or up is None:
            continue
        alpha = float(tensors.get(f"{stem}.alpha", len(down))) if "lora_down" in found.ends[0] else ALPHA
        product = up.float() @ (down.float() @ vectors(down.shape[1])) * (alpha / len(down))
        rows = product.split([outs[path] for path in paths])
        products |= dict(zip(paths, rows, strict=True))
    return products


def vectors(width: int) -> Tensor:
    return torch.randn(width, 4, generator=torch.Generator().manual_seed(9)) / width**0.5


def written(found: Case, tensors: Mapping[str, Tensor], path: Path) -> Path:
    raw = save({key: value.contiguous().clone() for key, value in tensors.items()}, metadata=found.header or None)
    path.write_bytes(raw)
    (path.parent / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": ALPHA}))
    return path


def check_read(read: Mapping[str, tuple[Tensor, Tensor]], expected: Mapping[str, Tensor]) -> None:
    assert set(read) == {path for path, product in expected.items() if path in read or product.any()}
    for path, (down, up) in read.items():
        torch.testing.assert_close(up @ (down @ vectors(down.shape[1])), expected[path], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("form", FORMATS)
def test_files_of_other_trainers_say_the_same(form: str, name: str, folder: Path, tmp_path: Path) -> None:
    (denoisers, targets), family = published(name, folder), FOLDERS[name][0]
    for prefix, denoiser in denoisers.items():
        found = case(form, family, denoiser, targets)
        path = written(found, found.tensors, tmp_path / f"{prefix}x.safetensors")
        expected = said(found, found.tensors, denoiser)
        assert len(expected) == len(random_triple(denoiser, targets).layers)
        check_read(import_lora(path, family, denoiser).layers, expected)


BROKEN = ("ltx", "cogvideox 5b", "hunyuan")
"""Wan's broken files are those of tests/models/test_lora_import.py."""


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[Case, str, nn.Module]]:
    made = {}
    for name in BROKEN:
        family, maker = FOLDERS[name]
        denoisers, targets = published(name, maker(tmp_path_factory.mktemp("family")))
        made |= {(name, form): (case(form, family, denoisers[""], targets), family, denoisers[""]) for form in FORMATS}
    return made


@settings(
    max_examples=240, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), name=st.sampled_from(BROKEN), form=st.sampled_from(FORMATS))
def test_a_broken_file_of_any_family_never_crashes_and_never_loads_wrong(
    data: st.DataObject, name: str, form: str, cases: Any, tmp_path: Path
) -> None:
    found, family, denoiser = cases[name, form]
    tensors = dict(found.tensors)
    for _ in range(data.draw(st.integers(1, 3))):
        data.draw(st.sampled_from(MUTATIONS))(tensors, data)
        if not tensors:
            break
    path = written(found, tensors, tmp_path / "x.safetensors")
    try:
        read = import_lora(path, family, denoiser).layers
    except InputError as error:
        assert str(path) in str(error)
        return
    kept = load(path.read_bytes())
    check_read(read, said(found, kept, denoiser))
    whole = [stem for stem in found.stems if all(stem + end in kept for end in found.ends)]
    assert 2 * len(whole) == sum(not key.endswith(".alpha") for key in kept), "nothing of the file was left out"


def test_every_tensor_of_an_export_is_one_of_a_layer(name: str, folder: Path) -> None:
    """No alpha, whose place stock loaders of some families do not know; no layer twice."""
    base = load_base(str(folder))
    for part in triple_of(bare_denoisers(base.folder), base.spec.lora_targets).by_expert().values():
        keys = lora_tensors(part, family=base.spec.name)
        assert {key[-len(DOWN) :] for key in keys} == {DOWN, UP}
        assert len(keys) == 2 * len(part.layers)
