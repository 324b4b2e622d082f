"""A tiny random CogVideoX folder of the real classes: what tests and checks load instead of a checkpoint.

Both published kinds: rotary embeddings and the DPM scheduler as the 5b, sine and cosine ones and DDIM as the 2b.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipeline_lib.models.folder import BaseCard
from pipeline_lib.models.tiny import _tokenizer

if TYPE_CHECKING:
    from diffusers import AutoencoderKLCogVideoX, CogVideoXPipeline, CogVideoXTransformer3DModel
    from transformers import T5EncoderModel

_LATENT_CHANNELS = 4


def tiny_cogvideox(folder: Path, seed: int = 0, *, rotary: bool = True) -> Path:
    """Saves a tiny random CogVideoX text-to-video folder, 32×32 pixels, 9 frames, 8 frames per second.

    Args:
        folder: where to save; made when missing.
        seed: of the random weights; the same seed gives the same weights.
        rotary: as the 5b, with its schedule; without as the 2b.

    Returns:
        The folder.
    """
    pipeline = _tiny_pipeline(seed, rotary)
    pipeline.save_pretrained(folder)
    card = BaseCard(
        height=32,
        width=32,
        num_frames=9,
        frames_per_second=8.0,
        sigma_shift=1.77 if rotary else 3.07,
        guidance_scale=3.0,
        sampling_steps=3,
        licence="CC0-1.0",
    )
    card.save(folder)
    return folder


def _tiny_pipeline(seed: int, rotary: bool) -> CogVideoXPipeline:
    from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler, CogVideoXPipeline

    tokenizer = _tokenizer()
    scheduler = CogVideoXDPMScheduler if rotary else CogVideoXDDIMScheduler
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CogVideoXPipeline(
            tokenizer=tokenizer,
            text_encoder=_text_encoder(len(tokenizer)),
            vae=_autoencoder(),
            transformer=_transformer(rotary),
            scheduler=scheduler(
                clip_sample=False,
                prediction_type="v_prediction",
                rescale_betas_zero_snr=True,
                snr_shift_scale=1.0 if rotary else 3.0,
                timestep_spacing="trailing",
            ),
        )


def _text_encoder(vocab_size: int) -> T5EncoderModel:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=vocab_size, d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
    )
    return T5EncoderModel(config).eval()


def _autoencoder() -> AutoencoderKLCogVideoX:
    from diffusers import AutoencoderKLCogVideoX

    return AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8),
        latent_channels=_LATENT_CHANNELS,
        layers_per_block=1,
        norm_num_groups=2,
        sample_height=32,
        sample_width=32,
        scaling_factor=0.7,
    ).eval()


def _transformer(rotary: bool) -> CogVideoXTransformer3DModel:
    from diffusers import CogVideoXTransformer3DModel

    return CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=_LATENT_CHANNELS,
        out_channels=_LATENT_CHANNELS,
        time_embed_dim=8,
        text_embed_dim=24,
        num_layers=2,
        sample_height=4,
        sample_width=4,
        sample_frames=9,
        use_rotary_positional_embeddings=rotary,
    ).eval()
