"""The published checkpoints as data: configs of their networks, the videos of our goals, and the goals.

Where the numbers come from. Each was read in two places:

- Wan: `get_transformer_config` and `vae22_diffusers_config` of diffusers' `scripts/convert_wan_to_diffusers.py`, and
  Wan's own `wan/configs/wan_t2v_1_3B.py`, `wan_t2v_14B.py`, `wan_ti2v_5B.py` (as copied in ml-explore/mlx-examples).
  A14B's experts are 14B's network each (the same script).
- LTX-Video 0.9.1: the defaults of `LTXVideoTransformer3DModel` in diffusers 0.42, with which
  `scripts/convert_ltx_to_diffusers.py` loads the checkpoint strictly; the autoencoder of its `get_vae_config("0.9.1")`.
- HunyuanVideo: the defaults of `HunyuanVideoTransformer3DModel` and `AutoencoderKLHunyuanVideo`, with which
  `scripts/convert_hunyuan_video_to_diffusers.py` loads the checkpoint strictly.
- CogVideoX: the arguments that the comments of `scripts/convert_cogvideox_to_diffusers.py` name (2B: 30 layers of 30
  heads; 5B: 42 of 48, rotary), over the defaults of `CogVideoXTransformer3DModel` and `AutoencoderKLCogVideoX`.
- UMT5-XXL and T5-v1.1-XXL: ComfyUI's `comfy/text_encoders/umt5_config_xxl.json` and `t5_config_xxl.json`; the encoder's
  config in Wan's and CogVideoX's folders has the same sizes. Llama 3 8B and CLIP-L: the configs that loaders of
  HunyuanVideo carry (`LLAVA_CONFIG`, `CLIP_CONFIG`, of llava-llama-3-8b-v1_1-extracted).

`billions` is the parameter count that goes with a name: of the checkpoints' own files where a name is rough (Wan 1.3B
has 1.42, CogVideoX-2b 1.69, -5b 5.57, LTX "2B" 1.92).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline_lib.models.economy import Storage
from pipeline_lib.models.tiny import tiny_wan, tiny_wan_a14b, tiny_wan_ti2v
from pipeline_lib.models.tiny_cogvideox import tiny_cogvideox
from pipeline_lib.models.tiny_hunyuan import tiny_hunyuan
from pipeline_lib.models.tiny_ltx import tiny_ltx

Config = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What issue 4 asks for on one H200; a field that is None asks nothing."""

    seconds: float | None = None
    gigabytes: float | None = None
    mfu: float | None = None

    def __str__(self) -> str:
        parts = [
            f"MFU ≥ {self.mfu}" if self.mfu else "",
            f"≤ {self.seconds:g} s" if self.seconds else "",
            f"≤ {self.gigabytes:g} GB" if self.gigabytes else "",
        ]
        return ", ".join(part for part in parts if part) or "none"


@dataclass(frozen=True, kw_only=True)
class FamilySize:
    """One checkpoint at one size of video.

    Attributes:
        name: on the command line.
        checkpoint: its hub id.
        tiny: makes a tiny folder of the same classes, whose tokenizer and scheduler stand in for the real ones.
        parts: configs of its networks, by the part's name in the index.
        video: frames, height, width in pixels.
        billions: parameters of one denoiser, in thousand millions.
        text_rows: rows of text that the denoiser sees at most.
        depth: number of blocks in each of the denoiser's stacks, by the name in its config.
        storage: of the frozen weights, unless told otherwise.
        goal: see :class:`Goal`.
    """

    name: str
    checkpoint: str
    tiny: Callable[[Path], Path]
    parts: Mapping[str, Config]
    video: tuple[int, int, int]
    billions: float
    text_rows: int
    depth: Mapping[str, int]
    storage: Storage = "full"
    goal: Goal = field(default_factory=Goal)

    @property
    def label(self) -> str:
        """The video as people write it: frames×height×width."""
        return "×".join(map(str, self.video))


def _tiny_2b(folder: Path) -> Path:
    return tiny_cogvideox(folder, rotary=False)


def _tiny_ltx_091(folder: Path) -> Path:
    return tiny_ltx(folder, noisy_decoder=True)


_T5_SIZES = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
_UMT5_XXL = {**_T5_SIZES, "vocab_size": 256384}
_T5_XXL = {**_T5_SIZES, "vocab_size": 32128}
_LLAMA_3_8B = {
    "vocab_size": 128320,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 8192,
    "initializer_range": 0.02,
}
_CLIP_L = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}


def _wan(heads: int, feed_forward: int, layers: int, channels: int = 16) -> dict[str, Any]:
    return {
        "num_attention_heads": heads,
        "attention_head_dim": 128,
        "ffn_dim": feed_forward,
        "num_layers": layers,
        "in_channels": channels,
        "out_channels": channels,
        "text_dim": 4096,
        "freq_dim": 256,
        "patch_size": [1, 2, 2],
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "eps": 1e-6,
    }


_WAN_VAE: dict[str, Any] = {}  # the class's defaults
_WAN_22_VAE = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "scale_factor_temporal": 4,
    "latents_mean": [0.0] * 48,  # values that change no figure here
    "latents_std": [1.0] * 48,
}
_LTX_091_VAE = {
    "decoder_block_out_channels": [256, 512, 1024],
    "decoder_layers_per_block": [5, 6, 7, 8],
    "decoder_spatio_temporal_scaling": [True, True, True],
    "decoder_inject_noise": [True, True, True, False],
    "upsample_residual": [True, True, True],
    "upsample_factor": [2, 2, 2],
    "timestep_conditioning": True,
}
_WAN_14B = _wan(40, 13824, 40)
_COG_2B = {"num_layers": 30, "num_attention_heads": 30}
_COG_5B = {"num_layers": 42, "num_attention_heads": 48, "use_rotary_positional_embeddings": True}


def _depth(transformer: Config) -> dict[str, int]:
    return {"num_layers": transformer["num_layers"]}


def _wan_size(name: str, checkpoint: str, transformer: Config, billions: float, **more: Any) -> FamilySize:
    parts = {"transformer": transformer, "vae": _WAN_VAE, "text_encoder": _UMT5_XXL, **more.pop("parts", {})}
    options = {"tiny": tiny_wan, "video": (81, 480, 832), **more}
    return FamilySize(
        name=name,
        checkpoint=f"Wan-AI/{checkpoint}-Diffusers",
        parts=parts,
        billions=billions,
        text_rows=512,
        depth=_depth(transformer),
        **options,
    )


def _cog_size(name: str, transformer: Config, billions: float, **more: Any) -> FamilySize:
    return FamilySize(
        name=name,
        checkpoint=f"THUDM/CogVideoX-{name.rpartition('-')[2]}",
        parts={"transformer": transformer, "vae": {}, "text_encoder": _T5_XXL},
        video=(49, 480, 720),
        billions=billions,
        text_rows=226,
        depth=_depth(transformer),
        **more,
    )


_ALL = (
    _wan_size("wan-1.3b", "Wan2.1-T2V-1.3B", _wan(12, 8960, 30), 1.42, goal=Goal(mfu=0.45, gigabytes=14)),
    _wan_size("wan-14b", "Wan2.1-T2V-14B", _WAN_14B, 14.29, goal=Goal(seconds=8)),
    _wan_size(
        "wan-14b-512",
        "Wan2.1-T2V-14B",
        _WAN_14B,
        14.29,
        video=(81, 512, 512),
        storage="nf4",
        goal=Goal(gigabytes=24),
    ),
    _wan_size(
        "wan-5b",
        "Wan2.2-TI2V-5B",
        _wan(24, 14336, 30, channels=48),
        5.0,
        tiny=tiny_wan_ti2v,
        video=(121, 704, 1280),
        parts={"vae": _WAN_22_VAE},
    ),
    _wan_size("wan-a14b", "Wan2.2-T2V-A14B", _WAN_14B, 14.29, tiny=tiny_wan_a14b, parts={"transformer_2": _WAN_14B}),
    FamilySize(
        name="ltx-2b",
        checkpoint="Lightricks/LTX-Video",
        tiny=_tiny_ltx_091,
        parts={"transformer": {}, "vae": _LTX_091_VAE, "text_encoder": _T5_XXL},
        video=(49, 512, 768),
        billions=1.92,
        text_rows=128,
        depth={"num_layers": 28},
        goal=Goal(gigabytes=9),
    ),
    FamilySize(
        name="hunyuan-13b",
        checkpoint="hunyuanvideo-community/HunyuanVideo",
        tiny=tiny_hunyuan,
        parts={"transformer": {}, "vae": {}, "text_encoder": _LLAMA_3_8B, "text_encoder_2": _CLIP_L},
        video=(81, 480, 832),
        billions=12.82,
        text_rows=256,
        depth={"num_layers": 20, "num_single_layers": 40},
    ),
    _cog_size("cogvideox-2b", _COG_2B, 1.69, tiny=_tiny_2b),
    _cog_size("cogvideox-5b", _COG_5B, 5.57, tiny=tiny_cogvideox, goal=Goal(gigabytes=18)),
)
SIZES: dict[str, FamilySize] = {size.name: size for size in _ALL}
