"""Wan's LoRA names: `diffusion_model.` and the original module names, which diffusers and ComfyUI both read.

diffusers: `loaders/lora_conversion_utils.py`, `_convert_non_diffusers_wan_lora_to_diffusers`; ComfyUI:
`comfy/lora.py`, `model_lora_keys_unet`. ComfyUI's modules with a weight are those of `comfy/ldm/wan/model.py` at
01c4fa4c (WanSelfAttention, WanT2VCrossAttention, WanAttentionBlock, Head, WanModel).
"""

from __future__ import annotations

from pipeline_lib.models.lora_names import RenamedBlocks

WAN_NAMES = RenamedBlocks(
    prefix="diffusion_model.",
    blocks="blocks",
    names={
        f"{ours}.{linear}": f"{theirs}.{letter}"
        for ours, theirs in (("attn1", "self_attn"), ("attn2", "cross_attn"))
        for linear, letter in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "o"))
    }
    | {"ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2"},
    comfy_block=(
        *(
            f"{attention}.{part}"
            for attention in ("self_attn", "cross_attn")
            for part in ("q", "k", "v", "o", "norm_q", "norm_k")
        ),
        "norm3",
        "ffn.0",
        "ffn.2",
    ),
    comfy_rest=(
        "patch_embedding",
        "text_embedding.0",
        "text_embedding.2",
        "time_embedding.0",
        "time_embedding.2",
        "time_projection.1",
        "head.head",
    ),
)
