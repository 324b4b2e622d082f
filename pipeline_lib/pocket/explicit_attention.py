"""Attention written out, for training in bfloat16 on a CPU.

PyTorch's fused attention has a slow backward pass there: for 8 clips of 208 tokens, 3 heads of 64, forward and
backward take 18 ms a layer fused and 10 ms written out; across to 35 rows of text 11 and 3 ms; for 48 frames of 16
tokens 10 and 1 ms (one core, AVX-512 BF16). In float32 there is nothing to gain.
"""

from __future__ import annotations

import torch
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor
from torch import Tensor


class ExplicitAttention(WanAttnProcessor):
    """What Wan's own processor computes, text to video, as two matrix products and a softmax.

    Args:
        watched: where each call with a mask puts the logarithm by which its masked rows, all together, raise the
            sum of the exponentials; None: nowhere.
    """

    def __init__(self, watched: list[Tensor] | None = None) -> None:
        super().__init__()
        self.watched = watched

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            attn: the layer; it has no image projections.
            hidden_states: shape (B, S, D).
            encoder_hidden_states: what is attended to, shape (B, K, D); None: itself.
            attention_mask: added to the logits, broadcast to (B, heads, S, K).
            rotary_emb: cosines and sines, shape (1, S, 1, D / heads) each, every value twice.

        Returns:
            Shape (B, S, D).
        """
        assert attn.add_k_proj is None
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        heads = (2, (attn.heads, -1))
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(*heads)
        key = attn.norm_k(attn.to_k(context)).unflatten(*heads)
        value = attn.to_v(context).unflatten(*heads).transpose(1, 2)
        if rotary_emb is not None:
            query, key = _rotate(query, *rotary_emb), _rotate(key, *rotary_emb)
        query, key = query.transpose(1, 2).to(value.dtype), key.transpose(1, 2).to(value.dtype)
        logits = query @ key.mT * query.shape[-1] ** -0.5
        if attention_mask is not None:
            real = logits.masked_fill(attention_mask != 0, float("-inf"))
            logits = logits + attention_mask
            if self.watched is not None:
                share = logits.float().logsumexp(-1) - real.float().logsumexp(-1)
                self.watched.append(share.mean())
        attended = logits.softmax(-1, dtype=torch.float32).to(value.dtype) @ value
        projected: Tensor = attn.to_out[0](attended.transpose(1, 2).flatten(2))
        return projected


def _rotate(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn each pair of channels; shape (B, S, heads, D / heads)."""
    first, second = states.unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = cosines[..., 0::2], sines[..., 0::2]
    return torch.stack([first * cosine - second * sine, first * sine + second * cosine], dim=-1).flatten(-2)
