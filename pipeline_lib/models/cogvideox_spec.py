"""What of a CogVideoX folder is only data: which variant it is, and its frame rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_lib.errors import InputError
from pipeline_lib.models.base import FamilySpec
from pipeline_lib.models.folder import BaseCard, PipelineFolder
from pipeline_lib.records import FrameRules

if TYPE_CHECKING:
    from pipeline_lib.models.cogvideox_schedule import DiffusionSchedule

TEXT_ROWS = 226  # the stock call's max_sequence_length, which the 2B's position embedding also counts on
TEMPORAL_FACTOR = 4
# Of a video with a first frame by itself AutoencoderKLCogVideoX decodes latent frames two by two: an even number of
# them comes out as 4 frames each, three frames too many. So 1 + 8k frames, though any 1 + 4k can be encoded.
FRAMES_PER_CHUNK = 2 * TEMPORAL_FACTOR
LORA_TARGETS = (*(f"attn1.{linear}" for linear in ("to_q", "to_k", "to_v", "to_out.0")), "ff.net.0.proj", "ff.net.2")
_SCHEDULERS = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")
_WANTED = "a text-to-video folder of the CogVideoX-2b or -5b kind"


def check_variant(folder: PipelineFolder) -> None:
    """Raises InputError unless the folder is complete and of a variant that is supported."""
    for part in ("tokenizer", "text_encoder", "vae", "scheduler", "transformer"):
        if part not in folder.parts or not (folder.path / part).is_dir():
            raise InputError(f"{folder.path} has no {part}", expected=_WANTED, fix="fetch or save the folder again")
    _check_transformer(folder)
    kind, told = folder.parts["scheduler"][1], folder.config("scheduler").get("prediction_type", "epsilon")
    if kind not in _SCHEDULERS or told != "v_prediction":
        raise InputError(
            f"{folder.path / 'scheduler'} is none that this family is trained with",
            got=f"{kind}, {told}",
            expected=f"{' or '.join(_SCHEDULERS)}, v_prediction",
        )
    ratios = {part: folder.config(part).get("temporal_compression_ratio", 4) for part in ("vae", "transformer")}
    if set(ratios.values()) != {TEMPORAL_FACTOR}:
        raise InputError(
            f"{folder.path} does not have {TEMPORAL_FACTOR} frames to a latent frame", got=str(ratios), expected=_WANTED
        )


def _check_transformer(folder: PipelineFolder) -> None:
    transformer = folder.config("transformer")
    channels = transformer.get("in_channels", 16)
    learned = transformer.get("use_learned_positional_embeddings") or transformer.get("ofs_embed_dim")
    if learned or transformer.get("out_channels", 16) != channels:
        raise InputError(f"{folder.path} is conditioned on an image or a video", expected=_WANTED)
    if transformer.get("patch_size_t") is not None:
        # 1 + 8k frames are an odd number of latent frames, so the 1.5 models see one more, made up, before the first:
        # latents would no longer stand for pixel frames, which masks and single frames count on.
        raise InputError(
            f"{folder.path} is a CogVideoX 1.5, whose patches span {transformer['patch_size_t']} latent frames",
            expected=_WANTED,
            fix="use CogVideoX-2b or CogVideoX-5b",
        )
    if transformer.get("max_text_seq_length", TEXT_ROWS) != TEXT_ROWS:
        raise InputError(
            f"{folder.path} reads prompts of a length that the stock call does not make",
            got=str(transformer["max_text_seq_length"]),
            expected=f"{TEXT_ROWS} tokens",
        )


def family_spec(folder: PipelineFolder, schedule: DiffusionSchedule) -> FamilySpec:
    """The family's data with this checkpoint's rules, from its card or from its own configs.

    Args:
        folder: of a supported variant.
        schedule: of its scheduler.

    Returns:
        Frame rules, sampling defaults and LoRA targets.
    """
    card = _card(folder, schedule.median_shift)
    return FamilySpec(
        name="cogvideox",
        frame_rules=_rules(folder, card),
        lora_targets=LORA_TARGETS,
        temporal_factor=TEMPORAL_FACTOR,
        spatial_factor=_spatial_factor(folder),
        latent_channels=folder.config("transformer").get("in_channels", 16),
        **card.defaults(),
    )


def checked_rules(folder: PipelineFolder) -> FrameRules:
    """Frame rules of a folder that is complete and of a supported variant; torch is not needed for that."""
    check_variant(folder)
    return _rules(folder, _card(folder, sigma_shift=1.0))  # the rules do not depend on the shift


def _rules(folder: PipelineFolder, card: BaseCard) -> FrameRules:
    return card.rules(_spatial_factor(folder) * folder.config("transformer").get("patch_size", 2), FRAMES_PER_CHUNK)


def _spatial_factor(folder: PipelineFolder) -> int:
    """As `CogVideoXPipeline.__init__` counts it: every block of the autoencoder but the last halves the sides."""
    return int(2 ** (len(folder.config("vae").get("block_out_channels", (128, 256, 256, 512))) - 1))


def _card(folder: PipelineFolder, sigma_shift: float) -> BaseCard:
    """The folder's own; else what its configs and the stock call tell, for 2b and 5b 49 frames of 720×480.

    The frame rate and the licences are from the model cards.
    """
    if (own := folder.card()) is not None:
        return own
    transformer, spatial = folder.config("transformer"), _spatial_factor(folder)
    frames = transformer.get("sample_frames", 49)
    rotary = transformer.get("use_rotary_positional_embeddings", False)
    return BaseCard(
        height=spatial * transformer.get("sample_height", 60),
        width=spatial * transformer.get("sample_width", 90),
        num_frames=1 + (frames - 1) // FRAMES_PER_CHUNK * FRAMES_PER_CHUNK,
        frames_per_second=8.0,
        sigma_shift=sigma_shift,
        guidance_scale=6.0,
        sampling_steps=50,
        licence="CogVideoX licence" if rotary else "Apache-2.0",  # the 5b is rotary, the 2b is not
    )
