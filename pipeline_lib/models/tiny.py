"""Tiny random Wan folders of the real classes: what tests and checks load instead of a checkpoint.

They have the real models' shape in small: UMT5 text encoder, tokenizer with byte fallback and sentinels,
causal autoencoder with 8×8×4 compression (16×16×4 in Wan 2.2 TI2V), two transformer blocks, UniPC flow scheduler.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipeline_lib.models.folder import BaseCard

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
    from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

NUM_SENTINELS = 32
_WORDS = ("a", "the", "dog", "creature", "cat", "red", "hat", "on", "beach", "in", "snow", "running", "of", "video")


def tiny_wan(folder: Path, seed: int = 0, *, temporal_factor: int = 4) -> Path:
    """Saves a tiny random Wan 2.1 text-to-video folder, 32×32 pixels, 5 frames, 8 frames per second.

    Args:
        folder: where to save; made when missing.
        seed: of the random weights; the same seed gives the same weights.
        temporal_factor: pixel frames per latent frame of the autoencoder: 4 as Wan 2.1, or 1 or 2.

    Returns:
        The folder.
    """
    pipeline = _tiny_pipeline(seed, temporal_factor)
    pipeline.save_pretrained(folder)
    card = BaseCard(
        height=32,
        width=32,
        num_frames=5,
        frames_per_second=8.0,
        sigma_shift=3.0,
        guidance_scale=3.0,
        sampling_steps=3,
        licence="CC0-1.0",
    )
    card.save(folder)
    return folder


def tiny_wan_ti2v(folder: Path, seed: int = 0) -> Path:
    """Saves a tiny random Wan 2.2 TI2V folder, 32×64 pixels, 5 frames, 8 frames per second.

    As in TI2V-5B, the autoencoder is the residual one on 2×2 patches of pixels with 48 channels, and the stock
    pipeline gives the denoiser one time step for each token.

    Args:
        folder: where to save; made when missing.
        seed: of the random weights; the same seed gives the same weights.

    Returns:
        The folder.
    """
    from diffusers import WanPipeline

    tokenizer = _tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = WanPipeline(
            tokenizer=tokenizer,
            text_encoder=_text_encoder(len(tokenizer)),
            vae=_patched_autoencoder(),
            scheduler=_scheduler(5.0),
            transformer=_transformer(channels=48),
            expand_timesteps=True,
        )
    pipeline.save_pretrained(folder)
    _wan22_card(5.0).model_copy(update={"width": 64}).save(folder)
    return folder


def tiny_wan_a14b(folder: Path, seed: int = 0) -> Path:
    """Saves a tiny random Wan 2.2 folder with two experts, 32×32 pixels, 5 frames, 8 frames per second.

    The boundary is A14B's. The shift is 7, at which half of the training's sigmas lie on either side of it.

    Args:
        folder: where to save; made when missing.
        seed: of the random weights; the same seed gives the same weights.

    Returns:
        The folder.
    """
    from diffusers import WanPipeline

    tokenizer = _tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = WanPipeline(
            tokenizer=tokenizer,
            text_encoder=_text_encoder(len(tokenizer)),
            vae=_autoencoder(temporal_factor=4),
            scheduler=_scheduler(7.0),
            transformer=_transformer(),
            transformer_2=_transformer(),
            boundary_ratio=0.875,
        )
    pipeline.save_pretrained(folder)
    _wan22_card(7.0).model_copy(update={"guidance_scale": 4.0, "low_noise_guidance_scale": 3.0}).save(folder)
    return folder


def _wan22_card(shift: float) -> BaseCard:
    return BaseCard(
        height=32,
        width=32,
        num_frames=5,
        frames_per_second=8.0,
        sigma_shift=shift,
        guidance_scale=5.0,
        sampling_steps=3,
        licence="CC0-1.0",
    )


def _tiny_pipeline(seed: int, temporal_factor: int) -> WanPipeline:
    from diffusers import WanPipeline

    tokenizer = _tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return WanPipeline(
            tokenizer=tokenizer,
            text_encoder=_text_encoder(len(tokenizer)),
            vae=_autoencoder(temporal_factor),
            scheduler=_scheduler(3.0),
            transformer=_transformer(),
        )


def _scheduler(flow_shift: float) -> UniPCMultistepScheduler:
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(
        num_train_timesteps=1000, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=flow_shift
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "</s>", "<unk>"]
    pieces = [(token, 0.0) for token in specials]
    pieces += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    pieces += [(f"▁{word}", -4.0) for word in _WORDS if len(word) > 1]
    pieces += [(f"{space}{letter}", -8.0) for letter in "abcdefghijklmnopqrstuvwxyz,." for space in ("", "▁")]
    pieces.append(("▁", -9.0))
    backend = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    sentinels = [AddedToken(f"<extra_id_{i}>", special=True, normalized=False) for i in range(NUM_SENTINELS)]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=sentinels,
    )


def _text_encoder(vocab_size: int) -> UMT5EncoderModel:
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=vocab_size, d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
    )
    return UMT5EncoderModel(config).eval()


def _autoencoder(temporal_factor: int) -> AutoencoderKLWan:
    from diffusers import AutoencoderKLWan

    downsample = {4: [False, True, True], 2: [False, False, True], 1: [False, False, False]}[temporal_factor]
    return AutoencoderKLWan(
        base_dim=3,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=downsample,
        scale_factor_temporal=temporal_factor,
        scale_factor_spatial=8,
    ).eval()


def _patched_autoencoder() -> AutoencoderKLWan:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(
        base_dim=4,
        decoder_base_dim=4,
        z_dim=48,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        latents_mean=(torch.randn(48) * 0.2).tolist(),
        latents_std=(0.5 + torch.rand(48)).tolist(),
        scale_factor_temporal=4,
        scale_factor_spatial=16,
    ).eval()


def _transformer(channels: int = 16) -> WanTransformer3DModel:
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=channels,
        out_channels=channels,
        text_dim=24,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    ).eval()
