"""The pocket autoencoder treats every frame alone, by the stock calls too."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLWan

from pipeline_lib.pocket.framewise import as_pictures, build_autoencoder, encode_frames, to_picture_batch


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLWan:
    torch.manual_seed(0)
    return build_autoencoder().eval()


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    return torch.randint(0, 256, (5, 64, 64, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


@torch.no_grad()
def test_latents_of_a_clip_are_its_frames_latents(vae: AutoencoderKLWan, frames: torch.Tensor) -> None:
    pictures = to_picture_batch(frames)
    clip = pictures.transpose(0, 2)
    together = vae.encode(clip).latent_dist.mode()
    alone = torch.cat([vae.encode(picture[None]).latent_dist.mode() for picture in pictures], dim=2)
    assert together.shape == (1, 16, 5, 8, 8)
    assert (together - alone).abs().max() < 1e-5
    decoded = vae.decode(together).sample
    decoded_alone = torch.cat([vae.decode(together[:, :, t : t + 1]).sample for t in range(5)], dim=2)
    assert decoded.shape == (1, 3, 5, 64, 64)
    assert (decoded - decoded_alone).abs().max() < 1e-5


@torch.no_grad()
def test_running_as_pictures_changes_nothing(vae: AutoencoderKLWan, frames: torch.Tensor) -> None:
    pictures = to_picture_batch(frames)
    stock = vae.encode(pictures).latent_dist.mode()
    with as_pictures():
        fast = vae.encode(pictures).latent_dist.mode()
    assert (stock - fast).abs().max() < 1e-5


def test_gradients_reach_the_newest_tap_only(vae: AutoencoderKLWan, frames: torch.Tensor) -> None:
    with as_pictures():
        vae.decode(vae.encode(to_picture_batch(frames)).latent_dist.mode()).sample.square().mean().backward()
    gradient = vae.encoder.conv_in.weight.grad
    assert gradient[:, :, :-1].abs().max() == 0.0 < gradient[:, :, -1].abs().max()
    vae.zero_grad(set_to_none=True)


def test_normalised_latents_use_the_configs_statistics(vae: AutoencoderKLWan, frames: torch.Tensor) -> None:
    plain = encode_frames(vae, frames)
    mean, std = list(vae.config.latents_mean), list(vae.config.latents_std)
    vae.register_to_config(latents_mean=[1.0] * 16, latents_std=[2.0] * 16)
    shifted = encode_frames(vae, frames)
    vae.register_to_config(latents_mean=mean, latents_std=std)
    raw = plain * torch.tensor(std).view(1, -1, 1, 1) + torch.tensor(mean).view(1, -1, 1, 1)
    assert torch.allclose(shifted, (raw - 1.0) / 2.0, atol=1e-5)
