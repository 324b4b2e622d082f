"""LTX-Video's files: folders that need no card or are refused, and LoRA files that load whole in the stock loader."""

from __future__ import annotations

import json
import logging
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import LTXPipeline
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift
from safetensors.torch import load_file
from torch import Tensor

from pipeline_lib.errors import InputError
from pipeline_lib.flow_matching import logit_normal_sigma
from pipeline_lib.generation.sample import SamplingSettings, generate
from pipeline_lib.models.folder import CARD_NAME, PipelineFolder
from pipeline_lib.models.load import load_base
from pipeline_lib.models.lora_export import read_lora, write_lora
from pipeline_lib.models.ltx import LTXBase
from pipeline_lib.models.ltx_lora import LTX_NAMES
from pipeline_lib.models.ltx_spec import LORA_TARGETS, training_shift
from pipeline_lib.models.tiny_ltx import tiny_ltx
from pipeline_lib.models.triple import LoraTriple
from tests.models.factors import merge_by_hand, random_triple


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_ltx(tmp_path_factory.mktemp("ltx"))


@pytest.fixture(scope="module")
def base(folder: Path) -> LTXBase:
    base = load_base(str(folder))
    assert isinstance(base, LTXBase)
    return base


@pytest.fixture(scope="module")
def triple(base: LTXBase) -> LoraTriple:
    return random_triple(base.transformer, base.spec.lora_targets)


@pytest.fixture
def own_folder(folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(folder, tmp_path / "base"))


def stock(folder: Path) -> LTXPipeline:
    pipeline = LTXPipeline.from_pretrained(folder)
    assert isinstance(pipeline, LTXPipeline)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latents(pipeline: LTXPipeline) -> Tensor:
    frames = pipeline(
        "a red dog",
        height=32,
        width=64,
        num_frames=9,
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
    ).frames
    assert isinstance(frames, Tensor)
    return frames


@pytest.mark.parametrize(("identity", "motion"), [(1.0, 1.0), (0.6, 1.4)])
def test_the_stock_loader_gives_the_latents_of_merged_weights(
    folder: Path, triple: LoraTriple, tmp_path: Path, identity: float, motion: float
) -> None:
    path = write_lora(
        triple, tmp_path / "lora.safetensors", family="ltx", identity=identity, motion=motion, provenance={}
    )
    merged = stock(folder)
    untouched = latents(merged)
    merge_by_hand(merged.transformer, triple, identity, motion)
    expected = latents(merged)
    pipeline = stock(folder)
    pipeline.load_lora_weights(path)
    torch.testing.assert_close(latents(pipeline), expected, atol=1e-4, rtol=0)
    assert (expected - untouched).abs().max() > 0.05  # the comparison means something


def test_no_key_is_dropped_and_nothing_warns(
    folder: Path, triple: LoraTriple, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_lora(triple, tmp_path / "lora.safetensors", family="ltx", provenance={})
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
        f"diffusion_model.{name}.{side}.weight": getattr(module, side)["concept"].weight
        for name, module in pipeline.transformer.named_modules()
        if hasattr(module, "lora_A")
        for side in ("lora_A", "lora_B")
    }
    assert set(live) == set(file) and len(file) == 2 * 2 * len(LORA_TARGETS) == 2 * len(triple.layers)
    assert all(torch.equal(live[key], file[key]) for key in file)


def test_every_key_is_one_that_comfyui_reads(base: LTXBase, triple: LoraTriple, tmp_path: Path) -> None:
    path = write_lora(triple, tmp_path / "lora.safetensors", family="ltx", provenance={})
    known = LTX_NAMES.comfy_keys(base.transformer)
    assert set(load_file(path)) <= known
    assert "diffusion_model.transformer_blocks.2.attn1.to_q.lora_A.weight" not in known  # the tiny base has two blocks
    assert "transformer.transformer_blocks.0.attn1.to_q.lora_A.weight" not in known
    # Every module of diffusers' with a weight has its place in ComfyUI's, under the names of the conversion script.
    renamed = {"proj_in": "patchify_proj", "time_embed": "adaln_single", "norm_q": "q_norm", "norm_k": "k_norm"}
    for name in base.transformer.state_dict():
        if name.endswith(".weight"):
            parts = [renamed.get(part, part) for part in name.removesuffix(".weight").split(".")]
            assert f"diffusion_model.{'.'.join(parts)}.lora_A.weight" in known


def test_reading_gives_back_what_was_written(base: LTXBase, triple: LoraTriple, tmp_path: Path) -> None:
    path = write_lora(triple, tmp_path / "lora.safetensors", family="ltx", motion=0.5, provenance={"method": "x"})
    read = read_lora(path, "ltx", base.transformer)
    expected = triple.merged(1.0, 0.5)
    assert set(read.layers) == set(expected)
    for module, (down, up) in expected.items():
        assert torch.equal(read.layers[module][0], down) and torch.equal(read.layers[module][1], up)
    assert read.provenance["method"] == "x" and read.provenance["family"] == "ltx"
    with pytest.raises(InputError, match="none of our exports"):
        read_lora(path, "wan")


@pytest.mark.parametrize("shape", [(2, 32, 32), (8, 32, 32), (10, 32, 32), (9, 48, 32), (9, 32, 31)])
def test_clips_that_do_not_fit_are_refused(base: LTXBase, shape: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match=r"1 \+ 8k frames, sides that are multiples of 32"):
        base.encode_video(torch.zeros(1, 3, *shape))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_frames": 12}, "the nearest: 9 or 17 frames"), ({"width": 48}, "the nearest: width 32 or 64")],
)
def test_samples_that_cannot_be_made_are_refused(base: LTXBase, change: dict[str, Any], message: str) -> None:
    settings = SamplingSettings(**{**vars(SamplingSettings.of(base.spec)), **change})
    with pytest.raises(InputError, match=message):
        generate(base, "a dog", 0, settings)


def edit(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, **changes}), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "model_index.json",
            {"_class_name": "LTXImageToVideoPipeline"},
            r"LTXImageToVideoPipeline.*ltx \(LTXPipeline\)",
        ),
        ("model_index.json", {"_class_name": "LTXConditionPipeline"}, r"LTXConditionPipeline.*ltx \(LTXPipeline\)"),
        ("model_index.json", {"text_encoder": [None, None]}, "has no text_encoder"),
        ("model_index.json", {"transformer": ["diffusers", "LTX2VideoTransformer3DModel"]}, "another transformer"),
        ("model_index.json", {"scheduler": ["diffusers", "DDIMScheduler"]}, "FlowMatchEulerDiscreteScheduler"),
        ("transformer/config.json", {"in_channels": 16}, "do not go together"),
        ("transformer/config.json", {"out_channels": 4}, "do not go together"),
        ("transformer/config.json", {"patch_size": 2}, "patches latents"),
    ],
)
def test_other_variants_are_refused(own_folder: Path, file: str, changes: dict[str, Any], message: str) -> None:
    edit(own_folder / file, **changes)
    with pytest.raises(InputError, match=message):
        load_base(str(own_folder))


def test_a_base_of_another_size_needs_a_card(own_folder: Path) -> None:
    (own_folder / CARD_NAME).unlink()
    with pytest.raises(InputError, match=r"add mannerism\.json"):
        load_base(str(own_folder))


def test_a_published_folder_needs_no_card(own_folder: Path) -> None:
    """The configs of Lightricks/LTX-Video as `convert_ltx_to_diffusers.py` writes them, sizes left to the classes."""
    (own_folder / CARD_NAME).unlink()
    for part in ("transformer", "vae"):
        (own_folder / part / "config.json").write_text("{}", encoding="utf-8")
    spec = load_base(str(own_folder)).spec
    rules = spec.frame_rules
    assert (rules.height, rules.width, rules.num_frames, rules.frames_per_second) == (512, 704, 161, 25.0)
    assert (rules.size_multiple, rules.frame_multiple, spec.temporal_factor) == (32, 8, 8)
    assert (spec.guidance_scale, spec.sampling_steps) == (3.0, 50)
    assert spec.sigma_shift == pytest.approx(math.exp(2.05)) and "Lightricks" in spec.licence
    # 0.9.5's autoencoder tells its ratios, which do not follow from its four blocks.
    told = {"spatial_compression_ratio": 32, "temporal_compression_ratio": 8, "spatio_temporal_scaling": [True] * 4}
    edit(own_folder / "vae" / "config.json", **told)
    assert load_base(str(own_folder)).spec == spec


def test_the_training_shift_is_the_stock_schedulers(folder: Path, own_folder: Path) -> None:
    places = PipelineFolder(folder)
    for tokens in (1024, 2688, 4096):
        assert training_shift(places, tokens) == pytest.approx(
            math.exp(calculate_shift(tokens, 1024, 4096, 0.95, 2.05))
        )
    assert training_shift(places, 8) == pytest.approx(math.exp(0.95))
    assert training_shift(places, 10**5) == pytest.approx(math.exp(2.05))
    # The trainer's sigmoid(N(mu, 1)) is the logit-normal density shifted by exp(mu).
    ours = logit_normal_sigma(torch.Generator().manual_seed(0), 1000, math.exp(1.5))
    theirs = torch.sigmoid(torch.randn(1000, generator=torch.Generator().manual_seed(0)) + 1.5)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    edit(own_folder / "scheduler" / "scheduler_config.json", use_dynamic_shifting=False, shift=5.0)
    assert training_shift(PipelineFolder(own_folder), 2688) == 5.0
