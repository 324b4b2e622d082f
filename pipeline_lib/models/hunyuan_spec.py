"""What of a HunyuanVideo folder is only data: which variant it is, its frame rules, which layers an adapter takes."""

from __future__ import annotations

import math

from pipeline_lib.errors import InputError
from pipeline_lib.models.base import FamilySpec
from pipeline_lib.models.folder import CARD_NAME, BaseCard, PipelineFolder
from pipeline_lib.records import FrameRules

PARTS = ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2", "vae", "scheduler", "transformer")
DOUBLE_LINEARS = (
    *(f"attn.{linear}" for linear in ("to_q", "to_k", "to_v", "to_out.0")),
    *(f"attn.{linear}" for linear in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")),
    *(f"{stream}.{linear}" for stream in ("ff", "ff_context") for linear in ("net.0.proj", "net.2")),
)
SINGLE_LINEARS = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp", "proj_out")
_WANTED = "a text-to-video folder of the HunyuanVideo kind, like hunyuanvideo-community/HunyuanVideo"


def check_variant(folder: PipelineFolder) -> None:
    """Raises InputError unless the folder is complete and of the one variant that is supported."""
    for part in PARTS:
        if part not in folder.parts or not (folder.path / part).is_dir():
            raise InputError(f"{folder.path} has no {part}", got=", ".join(sorted(folder.parts)), expected=_WANTED)
    transformer, vae = folder.config("transformer"), folder.config("vae")
    channels = transformer.get("in_channels", 16)
    if transformer.get("image_condition_type") is not None or (transformer.get("out_channels") or channels) != channels:
        raise InputError(f"{folder.path} is conditioned on an image", expected=_WANTED)
    if not transformer.get("guidance_embeds", True):
        raise InputError(
            f"{folder.path} is not guidance-distilled: the stock pipeline would sample it without guidance",
            expected=_WANTED,
        )
    if channels != vae.get("latent_channels", 16):
        raise InputError(
            f"{folder.path}: transformer and vae do not go together",
            got=f"{channels} and {vae.get('latent_channels', 16)} channels",
        )


def family_spec(folder: PipelineFolder) -> FamilySpec:
    """The family's data with this checkpoint's rules, from its card or HunyuanVideo's own defaults.

    Args:
        folder: with a card where the base is none of the published size.

    Returns:
        Frame rules, sampling defaults and LoRA targets.

    Raises:
        InputError: a base of another size has no card.
    """
    transformer, autoencoder = folder.config("transformer"), folder.config("vae")
    spatial = autoencoder.get("spatial_compression_ratio", 8)
    temporal = autoencoder.get("temporal_compression_ratio", 4)
    card = folder.card() or _hunyuan_card(folder)
    return FamilySpec(
        name="hunyuan",
        frame_rules=card.rules(
            math.lcm(16, spatial * transformer.get("patch_size", 2)), temporal * transformer.get("patch_size_t", 1)
        ),
        lora_targets=lora_targets(transformer.get("num_layers", 20), transformer.get("num_single_layers", 40)),
        temporal_factor=temporal,
        spatial_factor=spatial,
        latent_channels=autoencoder.get("latent_channels", 16),
        patch_embedding="x_embedder.proj",
        **card.defaults(),
    )


def checked_rules(folder: PipelineFolder) -> FrameRules:
    """Frame rules of a folder that is complete and of a supported variant; torch is not needed for that."""
    check_variant(folder)
    return family_spec(folder).frame_rules


def lora_targets(double_blocks: int, single_blocks: int) -> tuple[str, ...]:
    """Whole paths of the adapted layers: their endings alone would take the text refiner's layers too.

    A LoRA of the refiner (`context_embedder.token_refiner`) cannot be written for both readers: diffusers cuts its
    fused A and B alike in three, ComfyUI multiplies them.
    """
    doubles = (f"transformer_blocks.{block}.{linear}" for block in range(double_blocks) for linear in DOUBLE_LINEARS)
    singles = (
        f"single_transformer_blocks.{block}.{linear}" for block in range(single_blocks) for linear in SINGLE_LINEARS
    )
    return (*doubles, *singles)


def _hunyuan_card(folder: PipelineFolder) -> BaseCard:
    """The stock call's defaults (`HunyuanVideoPipeline.__call__`); 24 frames a second and shift 7 as published."""
    transformer = folder.config("transformer")
    if transformer.get("text_embed_dim", 4096) != 4096 or transformer.get("num_attention_heads", 24) != 24:
        raise InputError(
            f"{folder.path} is not the published HunyuanVideo, and does not tell what it was trained at",
            fix=f"add {CARD_NAME} with {', '.join(BaseCard.model_fields)}",
        )
    return BaseCard(
        height=720,
        width=1280,
        num_frames=129,
        frames_per_second=24.0,
        sigma_shift=float(folder.config("scheduler").get("shift") or 7.0),
        guidance_scale=6.0,
        sampling_steps=50,
        licence="Tencent Hunyuan Community License",
    )
