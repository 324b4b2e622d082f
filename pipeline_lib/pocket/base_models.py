"""The pocket base's parts: real library classes at pocket size."""

from __future__ import annotations

from diffusers import UniPCMultistepScheduler, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from pipeline_lib.pocket.world_settings import FLOW_SHIFT

TEXT_WIDTH = 128
MAX_TEXT_TOKENS = 512
"""Length that a stock ``WanPipeline`` call pads prompt embeddings to."""


def build_transformer() -> WanTransformer3DModel:
    """A fresh pocket transformer: 6 blocks, 192 wide, 16 tokens a frame."""
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=3,
        attention_head_dim=64,
        in_channels=16,
        out_channels=16,
        text_dim=TEXT_WIDTH,
        freq_dim=256,
        ffn_dim=768,
        num_layers=6,
        rope_max_seq_len=64,
    )


def build_text_encoder(vocabulary: int) -> UMT5EncoderModel:
    """A fresh pocket text encoder of T5's kind.

    Args:
        vocabulary: number of tokens.

    Returns:
        The encoder; embeddings are 128 wide.
    """
    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=TEXT_WIDTH,
        d_kv=32,
        d_ff=256,
        num_layers=3,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
        relative_attention_num_buckets=32,
    )
    return UMT5EncoderModel(config)


def build_scheduler() -> UniPCMultistepScheduler:
    """Wan's scheduler with the pocket base's flow shift."""
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        num_train_timesteps=1000,
        flow_shift=FLOW_SHIFT,
    )
