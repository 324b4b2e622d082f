"""A tiny random LTX-Video folder of the real classes: what tests and checks load instead of a checkpoint.

It has the real model's shape in small: T5 text encoder, autoencoder with 32×32×8 compression, two transformer blocks,
Euler flow scheduler that shifts by length as the published one does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipeline_lib.models.folder import BaseCard
from pipeline_lib.models.tiny import _tokenizer

if TYPE_CHECKING:
    from diffusers import AutoencoderKLLTXVideo, LTXPipeline, LTXVideoTransformer3DModel
    from transformers import T5EncoderModel

_CHANNELS = 8
_WIDTHS = (8, 8, 8, 8)


def tiny_ltx(folder: Path, seed: int = 0, *, noisy_decoder: bool = False) -> Path:
    """Saves a tiny random LTX-Video text-to-video folder, 32×32 pixels, 9 frames, 8 frames per second.

    Args:
        folder: where to save; made when missing.
        seed: of the random weights; the same seed gives the same weights.
        noisy_decoder: with an autoencoder like 0.9.1's, whose decoder takes a timestep and adds noise; else as 0.9.0's.

    Returns:
        The folder.
    """
    _tiny_pipeline(seed, noisy_decoder).save_pretrained(folder)
    card = BaseCard(
        height=32,
        width=32,
        num_frames=9,
        frames_per_second=8.0,
        sigma_shift=2.0,
        guidance_scale=3.0,
        sampling_steps=3,
        licence="CC0-1.0",
    )
    card.save(folder)
    return folder


def _tiny_pipeline(seed: int, noisy_decoder: bool) -> LTXPipeline:
    from diffusers import FlowMatchEulerDiscreteScheduler, LTXPipeline

    tokenizer = _tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LTXPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True,
                base_shift=0.95,
                max_shift=2.05,
                base_image_seq_len=1024,
                max_image_seq_len=4096,
                shift_terminal=0.1,
            ),
            vae=_autoencoder(noisy_decoder),
            text_encoder=_text_encoder(len(tokenizer)),
            tokenizer=tokenizer,
            transformer=_transformer(),
        )


def _text_encoder(vocab_size: int) -> T5EncoderModel:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=vocab_size, d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
    )
    return T5EncoderModel(config).eval()


def _autoencoder(noisy_decoder: bool) -> AutoencoderKLLTXVideo:
    from diffusers import AutoencoderKLLTXVideo

    like_091: dict[str, Any] = {
        "decoder_block_out_channels": (8, 16, 32),
        "decoder_layers_per_block": (1, 1, 1, 1),
        "decoder_spatio_temporal_scaling": (True, True, True),
        "decoder_inject_noise": (True, True, True, False),
        "upsample_residual": (True, True, True),
        "upsample_factor": (2, 2, 2),
        "timestep_conditioning": True,
    }
    like_090 = {"decoder_block_out_channels": _WIDTHS, "decoder_layers_per_block": (1, 1, 1, 1, 1)}
    autoencoder = AutoencoderKLLTXVideo(
        latent_channels=_CHANNELS,
        block_out_channels=_WIDTHS,
        layers_per_block=(1, 1, 1, 1, 1),
        scaling_factor=0.8,  # 1 in the published ones, which would show nothing
        **(like_091 if noisy_decoder else like_090),
    )
    # Trained values that random initialisation leaves at zero or one.
    autoencoder.latents_mean.normal_()
    autoencoder.latents_std.uniform_(0.5, 1.5)
    for name, parameter in autoencoder.named_parameters():
        if "per_channel_scale" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return autoencoder.eval()


def _transformer() -> LTXVideoTransformer3DModel:
    from diffusers import LTXVideoTransformer3DModel

    return LTXVideoTransformer3DModel(
        in_channels=_CHANNELS,
        out_channels=_CHANNELS,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        num_layers=2,
        caption_channels=24,
    ).eval()
