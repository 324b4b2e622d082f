"""The LTX-Video family: text-to-video, on packed latents, told the frame rate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import LTXPipeline
from torch import Tensor

from pipeline_lib.models.base import Conditioning
from pipeline_lib.models.diffusers_base import DiffusersBase
from pipeline_lib.models.folder import PipelineFolder
from pipeline_lib.models.ltx_spec import check_variant, compression, family_spec
from pipeline_lib.models.prompt_tokens import OwnTokens, own_tokens
from pipeline_lib.seeding import seeded_globally

TEXT_ROWS = 128  # the stock call's max_sequence_length


class LTXBase(DiffusersBase):
    """An LTX-Video text-to-video base; see :class:`pipeline_lib.models.base.BaseModel` for the contract.

    What the stock pipeline (diffusers, `pipelines/ltx/pipeline_ltx.py`) does otherwise than Wan's: prompts are not
    cleaned; the text encoder reads padding like text, the denoiser masks it; latents are packed, one token per
    latent position; positions are in seconds and pixels, so the frame rate is part of the model's input: that of
    the frame rules, at which every clip is read.

    Args:
        folder: the diffusers folder.
        source: what the user asked for.
        device: where all parts go.
        dtype: of all parts, as the stock documentation has it.

    Raises:
        InputError: a variant that is not text-to-video LTX-Video, or configs that contradict each other.
    """

    def __init__(self, folder: PipelineFolder, source: str, device: torch.device, dtype: torch.dtype) -> None:
        check_variant(folder)
        super().__init__(folder, source, device, dtype, family_spec(folder))
        self._compression = compression(folder)

    def compact(self, conditioning: Conditioning) -> Conditioning:
        """Rows that every prompt masks go: they have no weight in the denoiser's attention, not even a rounding's."""
        text, length = conditioning.tensors["text"], conditioning.tensors["length"]
        return Conditioning({**conditioning.tensors, "text": text[:, : int(length.max())].clone()})

    def velocity(self, noisy: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        """Text may be padded to 128 rows or compacted; see the contract."""
        text = conditioning.tensors["text"].to(self._device, self._dtype)
        grid = noisy.shape[2:]
        packed = self.transformer(
            hidden_states=noisy.to(self._device, self._dtype).flatten(2).transpose(1, 2),
            encoder_hidden_states=text,
            timestep=sigma.to(self._device, torch.float32) * self._scheduler.config.num_train_timesteps,
            encoder_attention_mask=self._text_mask(conditioning.tensors["length"], text.shape[1]),
            num_frames=grid[0],
            height=grid[1],
            width=grid[2],
            rope_interpolation_scale=self._seconds_and_pixels(),
            return_dict=False,
        )[0]
        velocity: Tensor = packed.transpose(1, 2).unflatten(2, grid).to(noisy.dtype)
        return velocity

    def pipeline(self) -> LTXPipeline:
        """The stock pipeline over the same modules, with a scheduler of its own."""
        return LTXPipeline(
            scheduler=self._fresh_scheduler(),
            vae=self._vae,
            text_encoder=self._text_encoder,
            tokenizer=self._tokenizer,
            transformer=self.transformer,
        )

    def _text_mask(self, length: Tensor, rows: int) -> Tensor | None:
        """True on real rows, or None where all are: attention is faster without a mask.

        Lengths on a GPU are not read back for that.
        """
        if length.device.type == "cpu" and int(length.min()) >= rows:
            return None
        return torch.arange(rows, device=self._device) < length.to(self._device)[:, None]

    def _seconds_and_pixels(self) -> tuple[float, float, float]:
        """What one latent step is along time, height and width (`LTXPipeline.__call__`, "micro-conditions")."""
        spatial = self._compression[0]
        return self._compression[1] / self._spec.frame_rules.frames_per_second, spatial, spatial

    def _encode_clip(self, pixels: Tensor) -> Tensor:
        mean, std = self._latent_statistics()
        latents: Tensor = (self._vae.encode(pixels).latent_dist.mode().float() - mean) / std
        return latents

    def _decode_clip(self, latents: Tensor) -> Tensor:
        """At the stock call's decode timestep 0, without the noise that other ones come with."""
        mean, std = self._latent_statistics()
        vae = self._vae
        timestep = latents.new_zeros(1) if vae.config.timestep_conditioning else None
        # The decoder of 0.9.1 draws noise: the same noise for every clip.
        with seeded_globally(self._device, 0, "decode"):
            pixels: Tensor = vae.decode((latents * std + mean).to(vae.dtype), timestep, return_dict=False)[0]
        return pixels

    def _latent_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of raw latents (`LTXPipeline._normalize_latents`)."""
        vae = self._vae
        mean, std = (value.float().view(1, -1, 1, 1, 1) for value in (vae.latents_mean, vae.latents_std))
        return mean, std / vae.config.scaling_factor

    def _encode_some(self, prompts: Sequence[str], hidden: Sequence[Sequence[int]]) -> Conditioning:
        ids, mask = self._padded_ids(prompts, hidden, TEXT_ROWS)
        # No mask, as the stock pipeline: padding is read like text, so it cannot be cut off before encoding.
        states = self._text_encoder(ids.to(self._device)).last_hidden_state
        return Conditioning({"text": states.float().cpu() * mask[..., None], "length": mask.sum(dim=1)})

    def _own_tokens(self, prompt: str) -> OwnTokens:
        return own_tokens(self._tokenizer, prompt, TEXT_ROWS)
