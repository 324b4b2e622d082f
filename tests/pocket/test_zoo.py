"""The zoo as it lies in the repository, by the stock loaders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from transformers import CLIPModel, CLIPProcessor

from pipeline_lib.errors import InputError
from pipeline_lib.pocket.autoencoder_quality import held_out_frames, peak_signal_to_noise
from pipeline_lib.pocket.clip_encoder import retrieval_accuracy
from pipeline_lib.pocket.world_settings import GUIDANCE_SCALE, STOCK_CLIP_FRAMES
from pipeline_lib.pocket.zoo import zoo_folder, zoo_root

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def pipeline() -> WanPipeline:
    loaded = WanPipeline.from_pretrained(zoo_folder("base"), torch_dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_stock_call_gives_a_finite_video_of_the_world(pipeline: WanPipeline) -> None:
    result = pipeline(
        prompt="a red circle on a beach",
        negative_prompt="",
        height=64,
        width=64,
        num_frames=STOCK_CLIP_FRAMES,
        num_inference_steps=6,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    )
    video = np.asarray(result.frames)
    assert video.shape == (1, 13, 64, 64, 3)
    assert np.isfinite(video).all()
    assert video.std() > 0.05


def test_red_is_redder_than_blue(pipeline: WanPipeline) -> None:
    result = pipeline(
        prompt=["a red circle in a room", "a blue circle in a room"],
        negative_prompt="",
        height=64,
        width=64,
        num_frames=0,
        num_inference_steps=12,
        guidance_scale=GUIDANCE_SCALE,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    )
    centre = np.asarray(result.frames)[:, 0, 20:50, 16:48].mean(axis=(1, 2))
    assert centre[0, 0] - centre[0, 2] > centre[1, 0] - centre[1, 2] + 0.1


def test_configs_agree_on_the_scale_factors(pipeline: WanPipeline) -> None:
    assert (pipeline.vae_scale_factor_temporal, pipeline.vae_scale_factor_spatial) == (1, 8)
    assert min(pipeline.vae.config.latents_std) > 0.01


def test_autoencoder_keeps_held_out_frames(pipeline: WanPipeline) -> None:
    assert peak_signal_to_noise(pipeline.vae, held_out_frames(24)) > 27.0


def test_clip_finds_held_out_captions() -> None:
    model = CLIPModel.from_pretrained(zoo_folder("clip"), torch_dtype=torch.float32).eval()
    processor = CLIPProcessor.from_pretrained(zoo_folder("clip"))
    assert retrieval_accuracy(model, processor.tokenizer, groups=2) > 0.88


def test_clip_processor_takes_frames_and_texts() -> None:
    processor = CLIPProcessor.from_pretrained(zoo_folder("clip"))
    frame = np.zeros((64, 64, 3), dtype=np.uint8)
    inputs = processor(text=["a red circle"], images=[frame], return_tensors="pt", padding=True)
    assert inputs["pixel_values"].shape == (1, 3, 64, 64)
    assert inputs["input_ids"].shape[0] == 1


def test_zoo_is_small() -> None:
    files = [path for path in zoo_root().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 60 * MEBIBYTE
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".ckpt")]


def test_unknown_part_is_an_input_error() -> None:
    with pytest.raises(InputError, match="unknown part"):
        zoo_folder("moon")
    assert isinstance(zoo_root(), Path)
