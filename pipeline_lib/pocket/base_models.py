"""The pocket base's parts: real library classes at pocket size."""

from __future__ import annotations

import torch
from diffusers import UniPCMultistepScheduler, WanTransformer3DModel
from torch import nn
from transformers import UMT5Config, UMT5EncoderModel

from pipeline_lib.errors import InputError
from pipeline_lib.pocket.world_settings import FLOW_SHIFT

TEXT_WIDTH = 128
BLOCKS = 8
MAX_TEXT_TOKENS = 512
"""Length that a stock ``WanPipeline`` call pads prompt embeddings to."""


def build_transformer(blocks: int = BLOCKS) -> WanTransformer3DModel:
    """A fresh pocket transformer: 192 wide, 16 tokens a frame.

    Args:
        blocks: how many.

    Returns:
        The transformer.
    """
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=3,
        attention_head_dim=64,
        in_channels=16,
        out_channels=16,
        text_dim=TEXT_WIDTH,
        freq_dim=256,
        ffn_dim=768,
        num_layers=blocks,
        rope_max_seq_len=64,
    )


@torch.no_grad()
def take_over(transformer: WanTransformer3DModel, shallow: WanTransformer3DModel) -> None:
    """Take over the weights of a transformer that has as many blocks or fewer, and with them what it computes.

    New blocks stand evenly among the old ones; each is a copy of the one before it that adds nothing yet, since its
    last projections are zero.

    Args:
        transformer: what is trained.
        shallow: of the same widths.

    Raises:
        InputError: it is the deeper one.
    """
    old, new = len(shallow.blocks), len(transformer.blocks)
    if old > new:
        raise InputError("a transformer cannot take over a deeper one", got=f"{old} blocks", expected=f"at most {new}")
    sources = [place * old // new for place in range(new)]
    whole = {name: value for name, value in shallow.state_dict().items() if not name.startswith("blocks.")}
    for place, source in enumerate(sources):
        block = shallow.blocks[source].state_dict()
        whole |= {f"blocks.{place}.{name}": value for name, value in block.items()}
    transformer.load_state_dict(whole)
    for place, block in enumerate(transformer.blocks):
        if place and sources[place] == sources[place - 1]:
            for last in (block.attn1.to_out[0], block.attn2.to_out[0], block.ffn.net[2]):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)


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
