"""What of an LTX-Video folder is only data: which variant it is, its frame rules and its training density."""

from __future__ import annotations

import math

from pipeline_lib.errors import InputError
from pipeline_lib.models.base import FamilySpec
from pipeline_lib.models.folder import CARD_NAME, BaseCard, PipelineFolder
from pipeline_lib.records import FrameRules

LORA_TARGETS = (
    *(f"{attention}.{linear}" for attention in ("attn1", "attn2") for linear in ("to_q", "to_k", "to_v", "to_out.0")),
    "ff.net.0.proj",
    "ff.net.2",
)
STOCK_SIZE_MULTIPLE = 32  # LTXPipeline.check_inputs
_CLASSES = {
    "vae": "AutoencoderKLLTXVideo",
    "transformer": "LTXVideoTransformer3DModel",
    "scheduler": "FlowMatchEulerDiscreteScheduler",
}


def check_variant(folder: PipelineFolder) -> None:
    """Raises InputError unless the folder is complete and of the one variant that is supported."""
    wanted = "a text-to-video folder of LTXPipeline, such as Lightricks/LTX-Video"
    for part in ("tokenizer", "text_encoder", "vae", "scheduler", "transformer"):
        if part not in folder.parts or not (folder.path / part).is_dir():
            raise InputError(f"{folder.path} has no {part}", expected=wanted, fix="fetch or save the folder again")
        kind = folder.parts[part][1]
        if kind != _CLASSES.get(part, kind):
            raise InputError(f"{folder.path} has another {part}", got=kind, expected=f"{_CLASSES[part]}, {wanted}")
    transformer, autoencoder = folder.config("transformer"), folder.config("vae")
    channels = transformer.get("in_channels", 128), transformer.get("out_channels") or transformer.get("in_channels")
    latents = autoencoder.get("latent_channels", 128)
    if channels[0] != latents or (channels[1] or latents) != latents:
        raise InputError(
            f"{folder.path}: transformer and autoencoder do not go together",
            got=f"{channels[0]} channels in, {channels[1]} out, {latents} in a latent",
            expected=wanted,
        )
    if (patches := [transformer.get(name, 1) for name in ("patch_size", "patch_size_t")]) != [1, 1]:
        # LTXPipeline tells such a transformer the grid before patching, so its positions would be wrong.
        raise InputError(f"{folder.path} has a transformer that patches latents", got=str(patches), expected=wanted)


def compression(folder: PipelineFolder) -> tuple[int, int]:
    """Pixels per latent along a side, and frames per latent frame; as `AutoencoderKLLTXVideo.__init__` has it.

    Args:
        folder: whose autoencoder's config is read.

    Returns:
        Spatial and temporal, (32, 8) for every published model.
    """
    config = folder.config("vae")
    steps = 2 ** sum(config.get("spatio_temporal_scaling", (True, True, True, False)))
    # A ratio that is told stands before one that follows from the blocks; 0.9.5 tells both.
    spatial = config.get("spatial_compression_ratio") or config.get("patch_size", 4) * steps
    temporal = config.get("temporal_compression_ratio") or config.get("patch_size_t", 1) * steps
    return int(spatial), int(temporal)


def family_spec(folder: PipelineFolder) -> FamilySpec:
    """The family's data with this checkpoint's rules, from its card or the stock pipeline's own defaults.

    Args:
        folder: with a card where the base is none of the published ones.

    Returns:
        Frame rules, sampling defaults and LoRA targets.

    Raises:
        InputError: a base of another size has no card.
    """
    spatial, temporal = compression(folder)
    card = folder.card() or _published_card(folder)
    return FamilySpec(
        name="ltx",
        frame_rules=card.rules(math.lcm(STOCK_SIZE_MULTIPLE, spatial), temporal),
        lora_targets=LORA_TARGETS,
        cross_attention="attn2",
        temporal_factor=temporal,
        spatial_factor=spatial,
        latent_channels=folder.config("vae").get("latent_channels", 128),
        **card.defaults(),
    )


def checked_rules(folder: PipelineFolder) -> FrameRules:
    """Frame rules of a folder that is complete and of a supported variant; torch is not needed for that."""
    check_variant(folder)
    return family_spec(folder).frame_rules


def training_shift(folder: PipelineFolder, tokens: int) -> float:
    """The shift of the training density of sigma for clips of so many tokens.

    Lightricks' trainer (LTX-Video-Trainer, `timestep_samplers.py`, ShiftedLogitNormalTimestepSampler) draws
    `sigmoid(N(mu, 1))`, which is the logit-normal density shifted by `exp(mu)`; `mu` is on the line that the stock
    pipeline's `calculate_shift` reads from the scheduler's config. The line is defined between two token counts and
    held there, not prolonged: at the stock call's 7,392 tokens it would give a shift of 25, with half of all draws
    above sigma 0.96, where little of a subject is learned.

    Args:
        folder: whose scheduler's config is read.
        tokens: latent positions of a clip.

    Returns:
        The shift; a scheduler that shifts all lengths alike tells its own.
    """
    config = folder.config("scheduler")
    if not config.get("use_dynamic_shifting"):
        return float(config.get("shift", 1.0))
    fewest, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    share = (min(max(tokens, fewest), most) - fewest) / (most - fewest)
    return math.exp(low + share * (high - low))


def _published_card(folder: PipelineFolder) -> BaseCard:
    """The stock call's defaults (`LTXPipeline.__call__`) and its documentation's negative prompt."""
    spatial, temporal = compression(folder)
    if (spatial, temporal) != (32, 8) or folder.config("transformer").get("caption_channels", 4096) != 4096:
        raise InputError(
            f"{folder.path} is none of the published LTX-Video models, and does not tell what it was trained at",
            fix=f"add {CARD_NAME} with {', '.join(BaseCard.model_fields)}",
        )
    height, width, num_frames = 512, 704, 161
    tokens = (height // spatial) * (width // spatial) * (1 + (num_frames - 1) // temporal)
    return BaseCard(
        height=height,
        width=width,
        num_frames=num_frames,
        frames_per_second=25.0,
        sigma_shift=training_shift(folder, tokens),
        guidance_scale=3.0,
        sampling_steps=50,
        negative_prompt="worst quality, inconsistent motion, blurry, jittery, distorted",
        licence="Lightricks' own, not the same for all versions: see the model's card",
    )
