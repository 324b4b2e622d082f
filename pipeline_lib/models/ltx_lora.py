"""LTX-Video's LoRA names: `diffusion_model.` and diffusers' own module names, which diffusers and ComfyUI both read.

diffusers: `loaders/lora_conversion_utils.py`, `_convert_non_diffusers_ltxv_lora_to_diffusers`; ComfyUI:
`comfy/lora.py`, `model_lora_keys_unet`. ComfyUI's modules with a weight are those of `comfy/ldm/lightricks/model.py`
at c4a6b389 (CrossAttention, FeedForward, BasicTransformerBlock, AdaLayerNormSingle, PixArtAlphaTextProjection,
LTXVModel); the norms in a block have none.
"""

from __future__ import annotations

from pipeline_lib.models.lora_names import RenamedBlocks
from pipeline_lib.models.ltx_spec import LORA_TARGETS

LTX_NAMES = RenamedBlocks(
    prefix="diffusion_model.",
    blocks="transformer_blocks",
    names={target: target for target in LORA_TARGETS},
    comfy_block=(
        *LORA_TARGETS,
        *(f"{attention}.{norm}" for attention in ("attn1", "attn2") for norm in ("q_norm", "k_norm")),
    ),
    comfy_rest=(
        "patchify_proj",
        "adaln_single.emb.timestep_embedder.linear_1",
        "adaln_single.emb.timestep_embedder.linear_2",
        "adaln_single.linear",
        "caption_projection.linear_1",
        "caption_projection.linear_2",
        "proj_out",
    ),
)
