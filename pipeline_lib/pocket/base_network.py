"""The network of the base while it is trained: transformer, text encoder, and the heads of its lessons."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from transformers import UMT5EncoderModel

from pipeline_lib.models.wan_attention import CollapsedPadding, rows_needed
from pipeline_lib.pocket.base_cells import CellHeads
from pipeline_lib.pocket.base_models import (
    MAX_TEXT_TOKENS,
    TEXT_WIDTH,
    build_text_encoder,
    build_transformer,
    take_over,
)
from pipeline_lib.pocket.base_places import PlaceHeads
from pipeline_lib.pocket.base_words import WordHeads
from pipeline_lib.pocket.explicit_attention import ExplicitAttention
from pipeline_lib.pocket.world_settings import CLIP_FRAMES


class TextToVideo(nn.Module):
    """Transformer and text encoder trained as one module.

    Args:
        vocabulary: number of tokens.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.transformer: WanTransformer3DModel = build_transformer()
        self.text_encoder: UMT5EncoderModel = build_text_encoder(vocabulary)
        for block in self.transformer.blocks:
            block.attn1.processor, block.attn2.processor = ExplicitAttention(), ExplicitAttention()
        self.heads = WordHeads(TEXT_WIDTH)
        width = self.transformer.proj_out.in_features
        self.places = PlaceHeads(self.transformer.blocks, width, CLIP_FRAMES)
        self.cells = CellHeads(self.transformer.blocks, width)
        self.padding = CollapsedPadding(self.transformer, MAX_TEXT_TOKENS, enabled=True)

    def start_from(self, folder: Path) -> None:
        """Take over the weights of a published base.

        Args:
            folder: a ``WanPipeline`` folder of the same widths, with as many blocks or fewer.
        """
        transformer = WanTransformer3DModel.from_pretrained(folder, subfolder="transformer", torch_dtype=torch.float32)
        encoder = UMT5EncoderModel.from_pretrained(folder, subfolder="text_encoder", torch_dtype=torch.float32)
        take_over(self.transformer, transformer)
        self.text_encoder.load_state_dict(encoder.state_dict())

    def watch_padding(self) -> list[Tensor]:
        """Let every cross-attention tell how much of it goes to padding.

        Returns:
            Filled at each forward pass with one number per block, the mean of -log(share of real rows).
        """
        watched: list[Tensor] = []
        for block in self.transformer.blocks:
            block.attn2.processor.watched = watched
        return watched

    def ignore_padding(self) -> None:
        """End what :meth:`watch_padding` began."""
        for block in self.transformer.blocks:
            block.attn2.processor.watched = None

    def embed(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Embed captions.

        Args:
            tokens: token ids, shape (clips, L).
            mask: 1 for real tokens, shape (clips, L).

        Returns:
            Shape (clips, L, width), zero on padding.
        """
        embeddings: Tensor = self.text_encoder(tokens, mask).last_hidden_state * mask[..., None]
        return embeddings

    def forward(self, noisy: Tensor, sigma: Tensor, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Predict velocity.

        Args:
            noisy: shape (B, C, T, h, w); B is a multiple of the captions.
            sigma: shape (B,).
            embeddings: of :meth:`embed`, shape (clips, L, width).
            mask: 1 for real tokens, shape (clips, L).

        Returns:
            Velocity, shape (B, C, T, h, w).
        """
        clips, longest, _ = embeddings.shape
        padded = nn.functional.pad(embeddings, (0, 0, 0, rows_needed(longest, MAX_TEXT_TOKENS) - longest))
        # Frames of one clip share its caption.
        frames = noisy.shape[0] // clips
        text, lengths = padded.repeat_interleave(frames, dim=0), mask.sum(dim=1).repeat_interleave(frames)
        return self.padding.velocity(noisy, sigma * 1000.0, text, lengths)
