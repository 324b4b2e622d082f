"""The pocket captioner itself: a tiny ``Qwen2VLForConditionalGeneration`` and its processor."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision, get_vision_position_ids

from pipeline_lib.pocket import captioner_language as language
from pipeline_lib.pocket.publishing import replace_folder
from pipeline_lib.pocket.world_settings import CLIP_FRAMES, SIZE
from pipeline_lib.storage.tensors import save_tensors

PATCH, MERGE, TEMPORAL = 8, 2, 2
"""Patches of 8×8 pixels and two frames, merged two by two."""
GRID = SIZE // PATCH
TOKENS = (GRID // MERGE) ** 2
"""Of a picture, and of every two frames of a clip."""
CLIP_GROUPS = -(-CLIP_FRAMES // TEMPORAL)
"""Pairs of frames of a clip, the last frame twice."""
_MEAN, _STD = 0.45, 0.27
_RANDOM_SHARE = 0.4  # of the random kernels, so that they do not drown what CLIP knows


def build_captioner(tokenizer: PreTrainedTokenizerFast) -> Qwen2VLForConditionalGeneration:
    """A fresh pocket captioner of 2.2 million parameters.

    Args:
        tokenizer: of :func:`~pipeline_lib.pocket.captioner_language.build_tokenizer`.

    Returns:
        The model.
    """
    token: dict[str, Any] = {name: tokenizer.convert_tokens_to_ids(name) for name in language.SPECIALS}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 192,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "bos_token_id": token[language.END],
        "eos_token_id": token[language.END],
        "pad_token_id": token[language.PAD],
        "rope_parameters": {"rope_type": "default", "mrope_section": [8, 8, 8], "rope_theta": 1000.0},
    }
    vision = {
        "depth": 4,
        "embed_dim": 128,
        "hidden_size": 192,
        "num_heads": 4,
        "mlp_ratio": 3,
        "hidden_act": "gelu",
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": TEMPORAL,
    }
    config = Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=True,
        image_token_id=token[language.IMAGE],
        video_token_id=token[language.VIDEO],
        vision_start_token_id=token[language.VISION_START],
        vision_end_token_id=token[language.VISION_END],
    )
    return Qwen2VLForConditionalGeneration(config)


def start_from_clip(model: Qwen2VLForConditionalGeneration, clip: Path) -> None:
    """Give the vision tower what the pocket CLIP's tower knows; training makes it fit.

    CLIP's kernel looks at the mean of both frames. Its normalisation before the blocks is folded into the kernel
    for a token of usual size; its class token and its places are left out, as this tower has none.

    Args:
        model: a fresh captioner.
        clip: the CLIP's folder; where there is none the model stays as it is.
    """
    file = clip / "model.safetensors"
    if not file.exists():
        return
    given = {name.removeprefix("vision_model."): value.float() for name, value in load_file(file).items()}
    kernel = given["embeddings.patch_embedding.weight"]
    centred = (kernel - kernel.mean(0)) * given["pre_layrnorm.weight"][:, None, None, None]
    places = given["embeddings.position_embedding.weight"]
    usual = (kernel.sum((1, 2, 3)).var() + places.var(1).mean()).sqrt()  # of a plain patch
    with torch.no_grad():
        visual = model.model.visual
        visual.patch_embed.proj.weight.mul_(_RANDOM_SHARE)
        visual.patch_embed.proj.weight += (centred / usual / TEMPORAL)[:, :, None]
        for number, block in enumerate(visual.blocks):
            own = {name.removeprefix(f"encoder.layers.{number}."): value for name, value in given.items()}
            for kind in ("weight", "bias"):
                parts = [own[f"self_attn.{part}_proj.{kind}"] for part in "qkv"]
                getattr(block.attn.qkv, kind).copy_(torch.cat(parts))
                pairs = (
                    (block.attn.proj, "self_attn.out_proj"), (block.mlp.fc1, "mlp.fc1"), (block.mlp.fc2, "mlp.fc2"),
                    (block.norm1, "layer_norm1"), (block.norm2, "layer_norm2"),
                )  # fmt: skip
                for module, name in pairs:
                    getattr(module, kind).copy_(own[f"{name}.{kind}"])


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2VLProcessor:
    """Processors of pictures and of video at 64×64, the tokenizer and the chat template, as one processor.

    Args:
        tokenizer: of :func:`~pipeline_lib.pocket.captioner_language.build_tokenizer`.

    Returns:
        The processor.
    """
    shared: dict[str, Any] = {
        "size": {"shortest_edge": SIZE * SIZE, "longest_edge": SIZE * SIZE},
        "image_mean": [_MEAN] * 3,
        "image_std": [_STD] * 3,
        "patch_size": PATCH,
        "merge_size": MERGE,
        "temporal_patch_size": TEMPORAL,
    }
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**shared),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(
            **shared, cap_pixels_per_frame=False
        ),  # said, for the class warns when it is not
        chat_template=language.CHAT_TEMPLATE,
    )


def patches_of(frames: Tensor) -> Tensor:
    """What the processor makes of clips, or of pictures as clips of one frame, that are 64×64 already.

    Args:
        frames: uint8, shape (N, T, 64, 64, 3); the last frame is repeated up to whole patches.

    Returns:
        Shape (N · groups · 64, 3 · 2 · 8 · 8), float32.
    """
    pixels = ((frames.float() / 255.0 - _MEAN) / _STD).permute(0, 1, 4, 2, 3)
    pixels = torch.cat([pixels, pixels[:, -1:].expand(-1, -frames.shape[1] % TEMPORAL, -1, -1, -1)], dim=1)
    groups, side = pixels.shape[1] // TEMPORAL, GRID // MERGE
    split = pixels.reshape(len(frames), groups, TEMPORAL, 3, side, MERGE, PATCH, side, MERGE, PATCH)
    return split.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9).reshape(-1, 3 * TEMPORAL * PATCH * PATCH)


def vision_features(model: Qwen2VLForConditionalGeneration, patches: Tensor, groups: int) -> Tensor:
    """What the class's vision tower computes, all pictures at once: it attends one by one, four times slower.

    Attention is written out for the same reason as in :mod:`pipeline_lib.pocket.explicit_attention`.

    Args:
        model: the captioner.
        patches: of :func:`patches_of`; the tower looks at each pair of frames apart.
        groups: pairs of frames of each clip; 1 for pictures.

    Returns:
        Shape (M, groups · 16, 192).
    """
    visual = model.model.visual
    states = functional.linear(patches, visual.patch_embed.proj.weight.flatten(1)).unflatten(0, (-1, GRID**2))
    places = get_vision_position_ids(torch.tensor([[1, GRID, GRID]]), MERGE)
    turn = visual.rotary_pos_emb(states, places)
    for block in visual.blocks:
        query, key, value = (
            block.attn.qkv(block.norm1(states)).unflatten(-1, (3, visual.config.num_heads, -1)).unbind(2)
        )
        query, key = apply_rotary_pos_emb_vision(query, key, *turn)
        query, key, value = (part.transpose(1, 2).to(value.dtype) for part in (query, key, value))
        weights = (query @ key.mT * block.attn.scaling).softmax(-1, dtype=torch.float32).to(value.dtype)
        states = states + block.attn.proj((weights @ value).transpose(1, 2).flatten(2))
        states = states + block.mlp(block.norm2(states))
    merged: Tensor = visual.merger(states.flatten(0, 1))
    return merged.unflatten(0, (-1, groups * TOKENS))


def publish(values: dict[str, Tensor], target: Path) -> None:
    """Write model and processor as one folder, in half precision.

    Args:
        values: averaged parameters.
        target: the folder.
    """
    tokenizer = language.build_tokenizer()
    model = build_captioner(tokenizer)
    model.load_state_dict(values, strict=False)
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(temporary)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    GenerationConfig(eos_token_id=end, pad_token_id=pad).save_pretrained(temporary)
    halves = {name: value.half() for name, value in model.state_dict().items() if name != "lm_head.weight"}
    save_tensors(temporary / "model.safetensors", halves, {"format": "pt"})
    build_processor(tokenizer).save_pretrained(temporary)
    replace_folder(temporary, target)
