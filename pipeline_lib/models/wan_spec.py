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


_WAN_21 = BaseCard(
    height=480,
    width=832,
    num_frames=81,
    frames_per_second=16.0,
    sigma_shift=3.0,
    guidance_scale=5.0,
    sampling_steps=50,
    negative_prompt=_NEGATIVE,
    licence="Apache-2.0",
)
_TI2V_5B = _WAN_21.model_copy(
    update={"height": 704, "width": 1280, "num_frames": 121, "frames_per_second": 24.0, "sigma_shift": 5.0}
)
_A14B = _WAN_21.model_copy(
    update={"sigma_shift": 12.0, "guidance_scale": 4.0, "low_noise_guidance_scale": 3.0, "sampling_steps": 40}
)
# By compression of the autoencoder (space, time), whether there are two experts, and whether each token has a timestep.
_PUBLISHED = {((8, 4), False, False): _WAN_21, ((16, 4), False, True): _TI2V_5B, ((8, 4), True, False): _A14B}
_WANTED = "a text-to-video folder of the Wan 2.1, Wan 2.2 TI2V or Wan 2.2 A14B kind"


def check_variant(folder: PipelineFolder) -> None:
    """Raises InputError unless the folder is complete and of a variant that is supported."""
    for part in ("tokenizer", "text_encoder", "vae", "scheduler", *_denoisers(folder)):
        if part not in folder.parts or not (folder.path / part).is_dir():
            raise InputError(f"{folder.path} has no {part}", expected=_WANTED, fix="fetch or save the folder again")
    for part in _denoisers(folder):
        config = folder.config(part)
        channels = config.get("in_channels", 16)
        if config.get("image_dim") is not None or (config.get("out_channels") or channels) != channels:
            raise InputError(f"{folder.path} is conditioned on an image", expected=_WANTED)
        if folder.index.get("expand_timesteps") and tuple(config.get("patch_size", (1, 2, 2))) != (1, 2, 2):
            raise InputError(
                f"{folder.path} has one timestep per token, which the stock pipeline counts at 2×2 latents a token",
                got=f"patch_size {config['patch_size']}",
                expected="(1, 2, 2)",
            )
    _check_boundary(folder)


def _denoisers(folder: PipelineFolder) -> tuple[str, ...]:
    return ("transformer", "transformer_2") if "transformer_2" in folder.parts else ("transformer",)


def _check_boundary(folder: PipelineFolder) -> None:
    boundary, experts = folder.index.get("boundary_ratio"), len(_denoisers(folder))
    if experts == 1 and boundary is not None:
        raise InputError(f"{folder.path} has a boundary_ratio, but no transformer_2 below it", expected=_WANTED)
    if experts == 1:
        return
    # Without it the stock pipeline never calls the second expert, and says nothing.
    if not isinstance(boundary, int | float) or not 0 < boundary < 1:
        raise InputError(
            f"{folder.path} has two experts",
            got=f"boundary_ratio {boundary}",
            expected="a boundary_ratio between 0 and 1 in model_index.json, 0.875 for Wan2.2-T2V-A14B",
        )
    channels = [folder.config(part).get("in_channels", 16) for part in _denoisers(folder)]
    if channels[0] != channels[1]:
        raise InputError(f"{folder.path} has two experts of different latents", got=str(channels), expected=_WANTED)


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
        frame_rules=card.rules(math.lcm(16, spatial * patch[1], spatial * patch[2]), FRAMES_PER_CHUNK),
        lora_targets=LORA_TARGETS,
        cross_attention="attn2",
        temporal_factor=temporal,
        spatial_factor=spatial,
        latent_channels=autoencoder.get("z_dim", 16),
        patch_embedding="patch_embedding",
        **card.defaults(),
    )


def checked_rules(folder: PipelineFolder) -> FrameRules:
    """Frame rules of a folder that is complete and of a supported variant; torch is not needed for that."""
    check_variant(folder)
    return family_spec(folder).frame_rules


def _wan_card(folder: PipelineFolder, compression: tuple[int, int]) -> BaseCard:
    """What the published text-to-video checkpoints were released with.

    Size, frames, frame rate, steps and guidance are of the model cards, and of `wan/configs` in Wan-Video/Wan2.1 and
    Wan-Video/Wan2.2 (`wan_ti2v_5B.py`, `wan_t2v_A14B.py`, `shared_config.py`). The shift is the folder's own
    scheduler's, by which the stock pipeline samples, and those configs' where it tells none. The 14B models make
    720×1280 too: a card says so.
    """
    kind = compression, "transformer_2" in folder.parts, bool(folder.index.get("expand_timesteps"))
    published = _PUBLISHED.get(kind)
    if published is None or folder.config("transformer").get("text_dim", 4096) != 4096:
        raise InputError(
            f"{folder.path} is none of the published Wan models, and does not tell what it was trained at",
            fix=f"add {CARD_NAME} with {', '.join(BaseCard.model_fields)}",
        )
    scheduler = folder.config("scheduler")
    shift = float(scheduler.get("flow_shift") or scheduler.get("shift") or published.sigma_shift)
    return published.model_copy(update={"sigma_shift": shift})
