"""Debug-size twins of the encoders: the real classes with random weights, for tests and for trying things out."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)


def tiny_clip(folder: Path, *, seed: int = 0, image_size: int = 32) -> Path:
    """Save a tiny random CLIP with tokenizer and image processor, as `ClipEncoder` loads it.

    Args:
        folder: where to; made when missing.
        seed: of the weights.
        image_size: the side of the square it looks at.

    Returns:
        `folder`.
    """
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789,.-'!?<>&;/()=\"")
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
    pictures = CLIPImageProcessor(
        size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
    )
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    start, end = vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]
    config = CLIPConfig(
        text_config={
            **shape,
            "vocab_size": len(words),
            "bos_token_id": start,
            "eos_token_id": end,
            "pad_token_id": end,
        },
        vision_config={**shape, "image_size": image_size, "patch_size": 8},
        projection_dim=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(config)
    model.save_pretrained(folder)
    CLIPProcessor(image_processor=pictures, tokenizer=tokenizer).save_pretrained(folder)
    return folder


def tiny_vit(folder: Path, *, seed: int = 0, image_size: int = 32) -> Path:
    """Save a tiny random vision transformer with its image processor, without a pooling layer, as DINO's.

    Args:
        folder: where to; made when missing.
        seed: of the weights.
        image_size: the side of the square it looks at.

    Returns:
        `folder`.
    """
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ViTModel(ViTConfig(image_size=image_size, patch_size=8, **shape), add_pooling_layer=False)
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": image_size, "width": image_size}).save_pretrained(folder)
    return folder
