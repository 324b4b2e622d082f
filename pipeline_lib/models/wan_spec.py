"""What of a Wan folder is only data: which variant it is, and its frame rules."""

from __future__ import annotations

import math

from pipeline_lib.errors import InputError
from pipeline_lib.models.base import FamilySpec
from pipeline_lib.models.folder import CARD_NAME, BaseCard, PipelineFolder
from pipeline_lib.records import FrameRules

FRAMES_PER_CHUNK = 4  # AutoencoderKLWan encodes 1 + 4k frames and silently drops the rest, at any compression
LORA_TARGETS = (
    *(f"{attention}.{linear}" for attention in ("attn1", "attn2") for linear in ("to_q", "to_k", "to_v", "to_out.0")),
    "ffn.net.0.proj",
    "ffn.net.2",
)
_NEGATIVE = (
    "Bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, overall "
    "gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, poorly drawn hands, "
    "poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, messy background, "
    "three legs, many people in the background, walking backwards"
)


def check_variant(folder: PipelineFolder) -> None:
    """Raises InputError unless the folder is complete and of the one variant that is supported."""
    wanted = "a text-to-video folder of the Wan 2.1 kind"
    for part in ("tokenizer", "text_encoder", "vae", "scheduler", "transformer"):
        if part not in folder.parts or not (folder.path / part).is_dir():
            raise InputError(f"{folder.path} has no {part}", expected=wanted, fix="fetch or save the folder again")
    transformer = folder.config("transformer")
    if "transformer_2" in folder.parts or folder.index.get("boundary_ratio") is not None:
        raise InputError(f"{folder.path} has two experts", expected=wanted)
    if folder.index.get("expand_timesteps"):
        raise InputError(f"{folder.path} has one timestep per token", expected=wanted)
    channels = transformer.get("in_channels", 16)
    if transformer.get("image_dim") is not None or (transformer.get("out_channels") or channels) != channels:
        raise InputError(f"{folder.path} is conditioned on an image", expected=wanted)


def family_spec(folder: PipelineFolder) -> FamilySpec:
    """The family's data with this checkpoint's rules, from its card or Wan's own defaults.

    Args:
        folder: with a card where the base is none of Wan's own sizes.

    Returns:
        Frame rules, sampling defaults and LoRA targets.

    Raises:
        InputError: the autoencoder's config contradicts itself, or a base of another size has no card.
    """
    autoencoder = folder.config("vae")
    # A config may leave out what equals the class's defaults.
    spatial = 2 ** (len(autoencoder.get("dim_mult", (1, 2, 4, 4))) - 1) * (autoencoder.get("patch_size") or 1)
    temporal = 2 ** sum(autoencoder.get("temperal_downsample", (False, True, True)))
    told = autoencoder.get("scale_factor_spatial", 8), autoencoder.get("scale_factor_temporal", 4)
    if told != (spatial, temporal):
        raise InputError(
            f"{folder.path / 'vae'} tells wrong scale factors, by which the stock pipeline shapes its latents",
            got=f"spatial {told[0]}, temporal {told[1]}",
            expected=f"spatial {spatial}, temporal {temporal}",
        )
    card = folder.card() or _wan_card(folder, (spatial, temporal))
    patch = folder.config("transformer").get("patch_size", (1, 2, 2))
    return FamilySpec(
        name="wan",
        frame_rules=FrameRules(
            height=card.height,
            width=card.width,
            num_frames=card.num_frames,
            frames_per_second=card.frames_per_second,
            size_multiple=math.lcm(16, spatial * patch[1], spatial * patch[2]),
            frame_multiple=FRAMES_PER_CHUNK,
        ),
        sigma_shift=card.sigma_shift,
        guidance_scale=card.guidance_scale,
        sampling_steps=card.sampling_steps,
        negative_prompt=card.negative_prompt,
        lora_targets=LORA_TARGETS,
        licence=card.licence,
        temporal_factor=temporal,
        patch_embedding="patch_embedding",
        self_conditioned=card.self_conditioning,
    )


def _wan_card(folder: PipelineFolder, compression: tuple[int, int]) -> BaseCard:
    """What the published Wan 2.1 text-to-video checkpoints were released with."""
    if compression != (8, 4) or folder.config("transformer").get("text_dim", 4096) != 4096:
        raise InputError(
            f"{folder.path} is none of the published Wan 2.1 models, and does not tell what it was trained at",
            fix=f"add {CARD_NAME} with {', '.join(BaseCard.model_fields)}",
        )
    scheduler = folder.config("scheduler")
    return BaseCard(
        height=480,
        width=832,
        num_frames=81,
        frames_per_second=16.0,
        sigma_shift=float(scheduler.get("flow_shift") or scheduler.get("shift") or 3.0),
        guidance_scale=5.0,
        sampling_steps=50,
        negative_prompt=_NEGATIVE,
        licence="Apache-2.0",
    )
