"""The CogVideoX family: CogVideoX-2b and -5b text-to-video, and every folder of the same classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import CogVideoXPipeline
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from torch import Tensor

from pipeline_lib.models.base import Conditioning
from pipeline_lib.models.cogvideox_schedule import DiffusionSchedule
from pipeline_lib.models.cogvideox_spec import TEXT_ROWS, check_variant, family_spec
from pipeline_lib.models.diffusers_base import DiffusersBase
from pipeline_lib.models.folder import PipelineFolder
from pipeline_lib.models.prompt_tokens import OwnTokens, own_tokens


class CogVideoXBase(DiffusersBase):
    """A CogVideoX text-to-video base; see :class:`pipeline_lib.models.base.BaseModel` for the contract.

    The denoiser predicts v at integer timesteps of a diffusion schedule; :class:`DiffusionSchedule` translates. Its
    stream holds all 226 rows of text, of which the stock encoder masks none: so `text` is not zero beyond a prompt, and
    nothing can be compacted. Prompts are read as they are.

    Args:
        folder: the diffusers folder.
        source: what the user asked for.
        device: where all parts go.
        dtype: of the transformer, the text encoder and the autoencoder. The 2b was trained in float16, the 5b in
            bfloat16.

    Raises:
        InputError: a variant that is not text-to-video CogVideoX 1.0, or a scheduler of another kind.
    """

    def __init__(self, folder: PipelineFolder, source: str, device: torch.device, dtype: torch.dtype) -> None:
        check_variant(folder)
        self.schedule = DiffusionSchedule(folder.load("scheduler").alphas_cumprod, device)
        super().__init__(folder, source, device, dtype, family_spec(folder, self.schedule))
        self._rotary: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}

    def velocity(self, noisy: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        """At the timestep whose sigma is nearest; exact where sigma is one of `schedule.sigmas`. See the contract."""
        text = conditioning.tensors["text"].to(self._device, self._dtype)
        timestep = self.schedule.nearest(sigma.to(self._device))
        rescaled = self.schedule.rescaled(noisy.to(self._device, torch.float32), timestep)
        prediction: Tensor = self.transformer(
            hidden_states=rescaled.to(self._dtype).transpose(1, 2),
            encoder_hidden_states=text,
            timestep=timestep,
            image_rotary_emb=self._rotary_embedding(*noisy.shape[2:]),
            return_dict=False,
        )[0]
        return self.schedule.velocity(rescaled, prediction.float().transpose(1, 2), timestep).to(noisy.dtype)

    def pipeline(self) -> CogVideoXPipeline:
        """The stock pipeline over the same modules, with a scheduler of its own."""
        return CogVideoXPipeline(
            tokenizer=self._tokenizer,
            text_encoder=self._text_encoder,
            vae=self._vae,
            transformer=self.transformer,
            scheduler=self._fresh_scheduler(),
        )

    def _rotary_embedding(self, frames: int, height: int, width: int) -> tuple[Tensor, Tensor] | None:
        """As `CogVideoXPipeline._prepare_rotary_positional_embeddings`, from the size of latents; kept by size."""
        config = self.transformer.config
        if not config.use_rotary_positional_embeddings:
            return None
        size = frames, height, width
        if size not in self._rotary:
            patch = config.patch_size
            grid = height // patch, width // patch
            trained = config.sample_width // patch, config.sample_height // patch
            self._rotary[size] = get_3d_rotary_pos_embed(
                embed_dim=config.attention_head_dim,
                crops_coords=get_resize_crop_region_for_grid(grid, *trained),
                grid_size=grid,
                temporal_size=frames,
                device=self._device,
            )
        return self._rotary[size]

    def _encode_clip(self, pixels: Tensor) -> Tensor:
        # `invert_scale_latents` is of the image that image-to-video starts from; text-to-video never looks at it.
        latents: Tensor = self._vae.encode(pixels).latent_dist.mode().float() * self._vae.config.scaling_factor
        return latents

    def _decode_clip(self, latents: Tensor) -> Tensor:
        pixels: Tensor = self._vae.decode(1 / self._vae.config.scaling_factor * latents, return_dict=False)[0]
        return pixels

    def _own_tokens(self, prompt: str) -> OwnTokens:
        return own_tokens(self._tokenizer, prompt, TEXT_ROWS)

    def _encode_some(self, prompts: Sequence[str], hidden: Sequence[Sequence[int]]) -> Conditioning:
        ids, mask = self._padded_ids(prompts, hidden, TEXT_ROWS)
        text = self._text_encoder(ids.to(self._device))[0]
        return Conditioning({"text": text.float().cpu(), "length": mask.sum(dim=1)})
