"""CogVideoX's LoRA names: `transformer.` and diffusers' own, for diffusers; another file for ComfyUI.

diffusers: `loaders/lora_pipeline.py`, `CogVideoXLoraLoaderMixin` converts nothing, and `loaders/peft.py`,
`PeftAdapterMixin.load_lora_adapter` drops every key without `transformer.`. ComfyUI: `comfy/lora.py` at 17358c8f,
`model_lora_keys_unet` knows no diffusers names of this family, only `diffusion_model.` and the module names of
`comfy/ldm/cogvideo/model.py` at 955ce480 (CogVideoXPatchEmbed, CogVideoXBlock, CogVideoXTransformer3DModel), which is
one linear layer for one of diffusers'. So no file serves both.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from pipeline_lib.errors import InputError
from pipeline_lib.models.cogvideox_spec import LORA_TARGETS
from pipeline_lib.models.lora_names import COMFY_SUFFIXES, Layers, RenamedBlocks

COGVIDEOX_NAMES = RenamedBlocks(
    prefix="transformer.", blocks="transformer_blocks", names={name: name for name in LORA_TARGETS}
)
"""What diffusers reads. `comfy_keys` is empty: ComfyUI reads none of these names, :data:`COGVIDEOX_COMFY_NAMES` is
for it."""

_DIFFUSERS, _COMFY = "diffusion_model.transformer_blocks.", "diffusion_model.blocks."
_COMFY_BLOCK = (
    *("q", "k", "v", "attn_out", "ff_proj", "ff_out", "norm_q", "norm_k"),
    *(f"{norm}.{part}" for norm in ("norm1", "norm2") for part in ("linear", "norm")),
)
_COMFY_REST = (
    "patch_embed.proj",
    "patch_embed.text_proj",
    "time_embedding_linear_1",
    "time_embedding_linear_2",
    "norm_final",
    "norm_out.linear",
    "norm_out.norm",
    "proj_out",
)
_RENAMED = RenamedBlocks(
    prefix="diffusion_model.",
    blocks="transformer_blocks",
    names=dict(zip(LORA_TARGETS, ("q", "k", "v", "attn_out", "ff_proj", "ff_out"), strict=True)),
)


class ComfyNames:
    """The format that ComfyUI reads: the list of blocks has another name there. A `LoraNames`."""

    def write(self, layers: Layers) -> dict[str, Tensor]:
        """See :class:`pipeline_lib.models.lora_names.LoraNames`."""
        return {key.replace(_DIFFUSERS, _COMFY, 1): tensor for key, tensor in _RENAMED.write(layers).items()}

    def read(self, tensors: Mapping[str, Tensor], what: str) -> dict[str, tuple[Tensor, Tensor]]:
        """See :class:`pipeline_lib.models.lora_names.LoraNames`."""
        for key in tensors:
            if not key.startswith(_COMFY):
                raise InputError(f"{what} has a key that is none of our exports'", got=key)
        return _RENAMED.read({key.replace(_COMFY, _DIFFUSERS, 1): value for key, value in tensors.items()}, what)

    def comfy_keys(self, denoiser: nn.Module) -> set[str]:
        """See :class:`pipeline_lib.models.lora_names.LoraNames`; only the number of blocks counts."""
        depth = len(list(denoiser.get_submodule("transformer_blocks").children()))
        blocks = [f"blocks.{block}.{name}" for block in range(depth) for name in _COMFY_BLOCK]
        return {f"diffusion_model.{module}{end}" for module in [*blocks, *_COMFY_REST] for end in COMFY_SUFFIXES}


COGVIDEOX_COMFY_NAMES = ComfyNames()
