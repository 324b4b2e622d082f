"""Cross-attention over 512 text rows at the price of a few.

A stock Wan call pads the prompt embeddings with zero rows to 512 and attends to all of them. The
zero rows are identical, so their keys and values are too: one zero row whose score is raised by
``log(number of zero rows)`` gives exactly the same output.
"""

from __future__ import annotations

import math

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttention
from torch import Tensor
from torch.nn import functional

from pipeline_lib.pocket.base_models import MAX_TEXT_TOKENS


class PaddedTextAttention:
    """Attention processor for Wan's cross-attention with a bias per text row.

    Attributes:
        bias: added to the scores, shape (B, 1, 1, rows); set before each forward pass.
    """

    def __init__(self) -> None:
        self.bias = torch.zeros(1, 1, 1, 1)

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        _attention_mask: Tensor | None = None,
        _rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend from video tokens to text rows.

        Args:
            attn: diffusers' ``WanAttention``.
            hidden_states: video tokens, shape (B, N, C).
            encoder_hidden_states: text rows, shape (B / k, rows, C); every k neighbours in the
                batch share their rows.
            _attention_mask: not used: :attr:`bias` stands in its place.
            _rotary_emb: not used: cross-attention has none.

        Returns:
            Attended tokens, shape (B, N, C).
        """
        query = attn.norm_q(attn.to_q(hidden_states))
        # Several frames of one clip share its caption: their queries stand in one long row.
        clips = encoder_hidden_states.shape[0]
        query = query.reshape(clips, -1, query.shape[-1])
        key = attn.norm_k(attn.to_k(encoder_hidden_states))
        value = attn.to_v(encoder_hidden_states)
        query, key, value = (rows.unflatten(2, (attn.heads, -1)).transpose(1, 2) for rows in (query, key, value))
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=self.bias.to(query.dtype))
        joined = mixed.transpose(1, 2).reshape(hidden_states.shape).type_as(query)
        projected: Tensor = attn.to_out[0](joined)
        return projected


def install_padded_attention(transformer: WanTransformer3DModel) -> PaddedTextAttention:
    """Make every cross-attention of a transformer use one shared processor.

    Args:
        transformer: changed in place.

    Returns:
        The processor, whose ``bias`` is set by the caller.
    """
    processor = PaddedTextAttention()
    for block in transformer.blocks:
        block.attn2.processor = processor
    return processor


def compress_padding(embeddings: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Replace the zero rows by one row and a bias.

    Args:
        embeddings: text encoder output, shape (B, L, C).
        mask: 1 for real tokens, shape (B, L).

    Returns:
        Rows of shape (B, L + 1, C), zero beyond the real tokens, and the bias (B, 1, 1, L + 1).
    """
    batch, length, width = embeddings.shape
    rows = torch.cat([embeddings * mask[..., None], embeddings.new_zeros(batch, 1, width)], dim=1)
    bias = torch.zeros(batch, length + 1)
    bias[:, :length] = torch.where(mask.bool(), 0.0, -math.inf)
    bias[:, length] = torch.log(MAX_TEXT_TOKENS - mask.sum(dim=1).float())
    return rows, bias[:, None, None, :]
