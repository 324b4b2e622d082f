"""The Wan family: Wan 2.1 text-to-video, and every folder of the same classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import WanPipeline
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from torch import Tensor, nn

from pipeline_lib.models.base import Conditioning
from pipeline_lib.models.diffusers_base import HIDDEN_SENTINEL, DiffusersBase
from pipeline_lib.models.folder import PipelineFolder
from pipeline_lib.models.wan_attention import CollapsedPadding, rows_needed
from pipeline_lib.models.wan_spec import check_variant, family_spec
from pipeline_lib.models.wan_text import TEXT_ROWS, own_tokens, token_spans


class WanBase(DiffusersBase):
    """A Wan 2.1 text-to-video base; see :class:`pipeline_lib.models.base.BaseModel` for the contract.

    The autoencoder stays in float32, as the stock documentation has it.

    Args:
        folder: the diffusers folder.
        source: what the user asked for.
        device: where all parts go.
        dtype: of the transformer and the text encoder.

    Raises:
        InputError: a variant that is not text-to-video Wan 2.1, or configs that contradict each other.
    """

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
            module = self._module("transformer", self._dtype)
            self._padding = CollapsedPadding(module, TEXT_ROWS, enabled=self._device.type == "cpu")
        return self._padding

    def token_spans(self, prompt: str) -> list[tuple[int, int]]:
        """Spans are of the prompt as given, though the tokenizer sees the cleaned one; no leading spaces."""
        return token_spans(self._tokenizer, prompt)

    @torch.no_grad()
    def token_embeddings(self, prompt: str) -> Tensor:
        """Of the tokens that the tokenizer makes of the cleaned prompt."""
        ids = torch.tensor(own_tokens(self._tokenizer, prompt), device=self._device, dtype=torch.long)
        embeddings: Tensor = self._text_encoder.get_input_embeddings()(ids).float().cpu()
        return embeddings

    def compact(self, conditioning: Conditioning) -> Conditioning:
        """512 rows become a few dozen; a copy, so that the 512 can go."""
        text, length = conditioning.tensors["text"], conditioning.tensors["length"]
        rows = rows_needed(int(length.max()), TEXT_ROWS)
        return Conditioning({**conditioning.tensors, "text": text[:, :rows].clone()})

    def velocity(self, noisy: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        """Text may be padded to 512 rows or compacted; see the contract."""
        text = conditioning.tensors["text"].to(self._device, self._dtype)
        lengths = conditioning.tensors["length"].to(self._device)
        timestep = sigma.to(self._device, torch.float32) * self._scheduler.config.num_train_timesteps
        return self.padding.velocity(noisy.to(self._device, self._dtype), timestep, text, lengths).to(noisy.dtype)

    def blocks(self) -> Sequence[nn.Module]:
        """The repeated transformer blocks, in order."""
        return list(self.transformer.blocks)

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recomputes each block's activations in the backward pass, or not."""
        self.padding.set_gradient_checkpointing(enabled)

    def pipeline(self) -> WanPipeline:
        """The stock pipeline over the same modules, with a scheduler of its own."""
        return WanPipeline(
            tokenizer=self._tokenizer,
            text_encoder=self._text_encoder,
            vae=self._vae,
            scheduler=self._fresh_scheduler(),
            transformer=self.transformer,
        )

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

    def _encode_some(self, prompts: Sequence[str], hidden: Sequence[Sequence[int]]) -> Conditioning:
        tokens = self._tokenizer(
            [prompt_clean(prompt) for prompt in prompts],
            padding="max_length",
            max_length=TEXT_ROWS,
            truncation=True,
            return_tensors="pt",
        )
        ids, mask = tokens.input_ids, tokens.attention_mask
        length = mask.gt(0).sum(dim=1)
        for row, positions in enumerate(hidden):
            assert all(position < length[row] - 1 for position in positions), "a hidden position is no token's"
            ids[row, list(positions)] = self._token_id(self.sentinel(HIDDEN_SENTINEL))
        # In float32 the encoder sees only as many rows as the longest prompt needs: padding is masked, so
        # the result is the stock one to 1e-6. In half precision that would show, so it sees all rows.
        seen = -(-int(length.max()) // 32) * 32 if self._dtype == torch.float32 else TEXT_ROWS
        device = self._device
        states = self._text_encoder(ids[:, :seen].to(device), mask[:, :seen].to(device)).last_hidden_state
        text = torch.zeros(len(prompts), TEXT_ROWS, states.shape[-1])
        text[:, :seen] = states.float().cpu() * mask[:, :seen, None]
        return Conditioning({"text": text, "length": length})
