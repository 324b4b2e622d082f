"""The Wan family: Wan 2.1 and Wan 2.2 TI2V text-to-video, and every folder of the same classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import WanPipeline
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from torch import Tensor

from pipeline_lib.models.base import Conditioning
from pipeline_lib.models.diffusers_base import DiffusersBase
from pipeline_lib.models.folder import PipelineFolder
from pipeline_lib.models.prompt_tokens import OwnTokens
from pipeline_lib.models.wan_attention import CollapsedPadding, rows_needed
from pipeline_lib.models.wan_spec import check_variant, family_spec
from pipeline_lib.models.wan_text import TEXT_ROWS, cleaned_tokens


class WanBase(DiffusersBase):
    """A Wan text-to-video base with one denoiser; see :class:`pipeline_lib.models.base.BaseModel` for the contract.

    The autoencoder stays in float32, as the stock documentation has it.

    Wan 2.2 TI2V's stock pipeline gives the denoiser one time step for each token (`expand_timesteps`), so that an
    image's tokens could stand at zero. From text alone they are all the same: one for each sample gives the same
    velocity, and spares every block 2 GB of modulation at 121 frames of 704×1280 (27,280 tokens × 6 × 3072, float32).

    Args:
        folder: the diffusers folder.
        source: what the user asked for.
        device: where all parts go.
        dtype: of the transformer and the text encoder.

    Raises:
        InputError: a variant that is not text-to-video, or configs that contradict each other.
    """

    BLOCK_LISTS = ("blocks",)
    VAE_DTYPE = torch.float32

    def __init__(self, folder: PipelineFolder, source: str, device: torch.device, dtype: torch.dtype) -> None:
        check_variant(folder)
        super().__init__(folder, source, device, dtype, family_spec(folder))
        self._padding: CollapsedPadding | None = None

    @property
    def transformer(self) -> Any:
        """The denoiser, a `WanTransformer3DModel`."""
        return self.padding.transformer

    @property
    def padding(self) -> CollapsedPadding:
        """How the denoiser treats padding rows of text: `enabled = False` makes it stock, bit for bit.

        Enabled on a CPU, where it makes a training step of a small base 1.5 times as fast. On a GPU the
        bias would rule out the fastest attention kernels.
        """
        if self._padding is None:
            self._padding = self._collapsed("transformer")
        return self._padding

    def compact(self, conditioning: Conditioning) -> Conditioning:
        """512 rows become a few dozen; a copy, so that the 512 can go."""
        text, length = conditioning.tensors["text"], conditioning.tensors["length"]
        rows = rows_needed(int(length.max()), TEXT_ROWS)
        return Conditioning({**conditioning.tensors, "text": text[:, :rows].clone()})

    def velocity(self, noisy: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        """Text may be padded to 512 rows or compacted; see the contract."""
        text = conditioning.tensors["text"].to(self._device, self._dtype)
        lengths = conditioning.tensors["length"].to(self._device)
        timestep = sigma.to(torch.float32) * self._scheduler.config.num_train_timesteps
        return self._denoise(noisy.to(self._device, self._dtype), timestep, text, lengths).to(noisy.dtype)

    def set_gradient_checkpointing(self, enabled: bool, *, keep_attention: bool = False) -> None:
        """Recomputes each block's activations in the backward pass, or not."""
        self.padding.set_gradient_checkpointing(enabled, keep_attention=keep_attention)

    def pipeline(self) -> WanPipeline:
        """The stock pipeline over the same modules, with a scheduler of its own."""
        return WanPipeline(
            tokenizer=self._tokenizer,
            text_encoder=self._text_encoder,
            vae=self._vae,
            scheduler=self._fresh_scheduler(),
            transformer=self.transformer,
            expand_timesteps=bool(self._folder.index.get("expand_timesteps", False)),
        )

    def _collapsed(self, part: str) -> CollapsedPadding:
        module = self._module(part, self._dtype)
        return CollapsedPadding(module, TEXT_ROWS, enabled=self._device.type == "cpu")

    def _denoise(self, noisy: Tensor, timestep: Tensor, text: Tensor, lengths: Tensor) -> Tensor:
        """Arguments as :meth:`CollapsedPadding.velocity` takes them; `timestep` may still be on the host."""
        return self.padding.velocity(noisy, timestep.to(noisy.device), text, lengths)

    def _encode_clip(self, pixels: Tensor) -> Tensor:
        mean, inverse_std = self._latent_statistics()
        latents: Tensor = (self._vae.encode(pixels).latent_dist.mode().float() - mean) * inverse_std
        return latents

    def _decode_clip(self, latents: Tensor) -> Tensor:
        mean, inverse_std = self._latent_statistics()
        pixels: Tensor = self._vae.decode(latents / inverse_std + mean, return_dict=False)[0]
        return pixels

    def _latent_statistics(self) -> tuple[Tensor, Tensor]:
        config = self._vae.config
        mean = torch.tensor(config.latents_mean, device=self._device)
        std = torch.tensor(config.latents_std, device=self._device)
        return mean.view(1, -1, 1, 1, 1), (1.0 / std).view(1, -1, 1, 1, 1)

    def _own_tokens(self, prompt: str) -> OwnTokens:
        return cleaned_tokens(self._tokenizer, prompt)

    def _encode_some(self, prompts: Sequence[str], hidden: Sequence[Sequence[int]]) -> Conditioning:
        ids, mask = self._padded_ids([prompt_clean(prompt) for prompt in prompts], hidden, TEXT_ROWS)
        length = mask.gt(0).sum(dim=1)
        # In float32 the encoder sees only as many rows as the longest prompt needs: padding is masked, so
        # the result is the stock one to 1e-6. In half precision that would show, so it sees all rows.
        seen = -(-int(length.max()) // 32) * 32 if self._dtype == torch.float32 else TEXT_ROWS
        device = self._device
        states = self._text_encoder(ids[:, :seen].to(device), mask[:, :seen].to(device)).last_hidden_state
        text = torch.zeros(len(prompts), TEXT_ROWS, states.shape[-1])
        text[:, :seen] = states.float().cpu() * mask[:, :seen, None]
        return Conditioning({"text": text, "length": length})
