"""The autoencoder's recipe: a step learns, a decoder-only step keeps the latents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan

from pipeline_lib.pocket import clip_cache
from pipeline_lib.pocket.autoencoder import AutoencoderSettings, AutoencoderTrainer, PictureSource, publish, train
from pipeline_lib.pocket.framewise import build_autoencoder
from pipeline_lib.pocket.pieces import Piece

SETTINGS = AutoencoderSettings(steps=2, batch=5)


@pytest.fixture(scope="module")
def source() -> PictureSource:
    made = PictureSource(Path("nowhere"), SETTINGS)
    made.shards[0] = clip_cache.render_shard(0, count=2)
    return made


@pytest.fixture
def base(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    vae = build_autoencoder().eval()
    vae.register_to_config(latents_mean=[0.5] * 16, latents_std=[1.5] * 16)
    publish(vae, tmp_path / "base", measure=False)
    return tmp_path / "base"


def test_a_part_that_was_loaded_does_not_tell_from_where(base: Path, tmp_path: Path) -> None:
    loaded = AutoencoderKLWan.from_pretrained(base / "vae", torch_dtype=torch.float32)
    publish(loaded, tmp_path / "again", measure=False)
    config, before = ((folder / "vae" / "config.json").read_text() for folder in (tmp_path / "again", base))
    assert config == before and "_name_or_path" not in config
    again = AutoencoderKLWan.from_pretrained(tmp_path / "again" / "vae", torch_dtype=torch.float32)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_batch_mixes_world_and_natural_pictures(source: PictureSource) -> None:
    pictures, weights = source.batch(0, 10)
    assert pictures.shape == (10, 3, 1, 64, 64) and weights.shape == (10, 1, 1, 64, 64)
    assert pictures.min() >= -1.0 and pictures.max() <= 1.0
    assert (weights.amax(dim=(1, 2, 3, 4)) == 1.0).sum() == 2


def test_decoder_only_training_keeps_the_encoder_and_the_statistics(
    source: PictureSource, base: Path, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, decoder_only=True)
    trainer = AutoencoderTrainer(Piece(tmp_path, "decoder", 5.0), source, settings, base)
    before = {name: value.clone() for name, value in trainer.vae.state_dict().items()}
    train(trainer)
    for name, value in trainer.vae.state_dict().items():
        kept = name.startswith(("encoder.", "quant_conv."))
        assert torch.equal(value, before[name]) or not kept, name
    assert not torch.equal(before["decoder.conv_in.weight"], trainer.vae.decoder.conv_in.weight)
    assert trainer.averaged().config.latents_std == [1.5] * 16


def test_past_taps_stay_zero_in_training(source: PictureSource, base: Path, tmp_path: Path) -> None:
    trainer = AutoencoderTrainer(Piece(tmp_path, "autoencoder", 5.0), source, SETTINGS, base)
    trainer.advance()
    kernels = [value for value in trainer.vae.parameters() if value.ndim == 5 and value.shape[2] > 1]
    assert kernels and all(kernel[:, :, :-1].abs().max().item() == 0.0 for kernel in kernels)
