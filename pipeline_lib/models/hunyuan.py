"""The HunyuanVideo family: text-to-video, guidance-distilled, two text encoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from diffusers import HunyuanVideoPipeline
from torch import Tensor, nn

from pipeline_lib.models.base import Conditioning
from pipeline_lib.models.diffusers_base import HIDDEN_SENTINEL, DiffusersBase
from pipeline_lib.models.folder import PipelineFolder
from pipeline_lib.models.hunyuan_spec import check_variant, family_spec
from pipeline_lib.models.hunyuan_text import (
    CROP,
    TEXT_ROWS,
    clip_ids,
    llama_tokenizer,
    own_tokens,
    padded_ids,
    without_spans,
)
from pipeline_lib.models.prompt_tokens import OwnTokens
from pipeline_lib.models.recompute import recomputing

NO_GUIDANCE = 1.0
_MASK = 3  # place of the attention mask among a block's inputs
_LAYERS_SKIPPED = 2  # `num_hidden_layers_to_skip` of the stock `_get_llama_prompt_embeds`


class HunyuanBase(DiffusersBase):
    """A HunyuanVideo base; see :class:`pipeline_lib.models.base.BaseModel` for the contract.

    Conditioning: `text` (batch, rows, d), Llama's third-last hidden states after the template's cut; `length` (batch,),
    the prompt's tokens and the end-of-turn token; `pooled` (batch, e), CLIP's pooled text.

    The model is guidance-distilled: it predicts the guided velocity for a guidance scale that is one of its inputs,
    `guidance` (batch,). Text is encoded with 1, no guidance, since the target that an adapter learns, noise - clean, is
    an unguided velocity; so do other trainers (hao-ai-lab/FastVideo, issues 140 and 545). The stock call samples at
    its own guidance scale.

    A learned word's sentinel is a token of Llama's only: CLIP reads its letters, in training as in sampling.

    Args:
        folder: the diffusers folder.
        source: what the user asked for.
        device: where all parts go.
        dtype: of the transformer and the text encoders.

    Raises:
        InputError: a variant that is not text-to-video HunyuanVideo.
    """

    ENCODERS = ("vae", "text_encoder", "text_encoder_2")
    BLOCK_LISTS = ("transformer_blocks", "single_transformer_blocks")

    def __init__(self, folder: PipelineFolder, source: str, device: torch.device, dtype: torch.dtype) -> None:
        check_variant(folder)
        super().__init__(folder, source, device, dtype, family_spec(folder))
        self._unpadded = False

    @property
    def transformer(self) -> Any:
        """The denoiser; its blocks are spared a mask that masks nothing."""
        fresh = "transformer" not in self._parts
        transformer = super().transformer
        for block in self._blocks_of(transformer) if fresh else ():
            block.register_forward_pre_hook(self._without_mask)
        return transformer

    def compact(self, conditioning: Conditioning) -> Conditioning:
        """256 rows become as many as the longest prompt has: the rest is masked everywhere. A copy."""
        text, length = conditioning.tensors["text"], conditioning.tensors["length"]
        return Conditioning({**conditioning.tensors, "text": text[:, : int(length.max())].clone()})

    def velocity(self, noisy: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        """Text may be padded to 256 rows or compacted; see the contract.

        A mask rules out the fastest attention kernels. Where all rows are real none is used; lengths on a GPU are
        not read back for that.
        """
        length = conditioning.tensors["length"]
        tensors = conditioning.to(self._device).tensors
        text = tensors["text"].to(self._dtype)
        self._unpadded = length.device.type == "cpu" and int(length.min()) >= text.shape[1]
        try:
            return self._denoise(noisy, sigma, tensors, text)
        finally:
            self._unpadded = False

    def set_gradient_checkpointing(self, enabled: bool, *, keep_attention: bool = False) -> None:
        """Recomputes each block in the backward pass, without the mask where its forward pass had none."""
        if enabled:
            call = recomputing(keep_attention=keep_attention)
            self.transformer.enable_gradient_checkpointing(partial(self._checkpoint, call))
        else:
            self.transformer.disable_gradient_checkpointing()

    def _denoise(self, noisy: Tensor, sigma: Tensor, tensors: Mapping[str, Tensor], text: Tensor) -> Tensor:
        mask = torch.arange(text.shape[1], device=self._device) < tensors["length"][:, None]
        velocity: Tensor = self.transformer(
            hidden_states=noisy.to(self._device, self._dtype),
            timestep=sigma.to(self._device, torch.float32) * self._scheduler.config.num_train_timesteps,
            encoder_hidden_states=text,
            encoder_attention_mask=mask.to(self._dtype),
            pooled_projections=tensors["pooled"].to(self._dtype),
            guidance=tensors["guidance"].to(self._dtype) * 1000.0,
            return_dict=False,
        )[0]
        return velocity.to(noisy.dtype)

    def _without_mask(self, _block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*inputs[:_MASK], None, *inputs[_MASK + 1 :]) if self._unpadded else inputs

    def _checkpoint(self, call: Callable[..., Any], block: nn.Module, *inputs: Any) -> Any:
        return call(block, *self._without_mask(block, inputs))

    def pipeline(self) -> HunyuanVideoPipeline:
        """The stock pipeline over the same modules, with a scheduler of its own."""
        return HunyuanVideoPipeline(
            text_encoder=self._text_encoder,
            tokenizer=self._tokenizer,
            transformer=self.transformer,
            vae=self._vae,
            scheduler=self._fresh_scheduler(),
            text_encoder_2=self._counted("text_encoder_2"),
            tokenizer_2=self._part("tokenizer_2"),
        )

    @property
    def _tokenizer(self) -> Any:
        if "tokenizer" not in self._parts:
            self._parts["tokenizer"] = llama_tokenizer(self._folder)
        return self._parts["tokenizer"]

    @property
    def _vae(self) -> Any:
        """In tiles above 256 pixels a side, and half precision is float16, both as the stock documentation has it.

        Untiled, the mask of its middle attention alone takes tens of gigabytes at 129 frames of 720×1280.
        """
        vae = self._module("vae", torch.float32 if self._dtype == torch.float32 else torch.float16)
        vae.enable_tiling()
        return vae

    def _own_tokens(self, prompt: str) -> OwnTokens:
        return own_tokens(self._tokenizer, prompt)

    def _sentinel_word(self, index: int) -> str:
        return f"<|reserved_special_token_{index}|>"

    def _encode_clip(self, pixels: Tensor) -> Tensor:
        latents: Tensor = self._vae.encode(pixels).latent_dist.mode().float() * self._vae.config.scaling_factor
        return latents

    def _decode_clip(self, latents: Tensor) -> Tensor:
        pixels: Tensor = self._vae.decode(latents / self._vae.config.scaling_factor, return_dict=False)[0]
        return pixels

    def _encode_some(self, prompts: Sequence[str], hidden: Sequence[Sequence[int]]) -> Conditioning:
        """CLIP has no positions and no sentinel: words hidden from Llama are cut out of its prompt."""
        spans = [
            self.token_spans(prompt) if positions else [] for prompt, positions in zip(prompts, hidden, strict=True)
        ]
        shown = [
            without_spans(prompt, [own[position] for position in positions])
            for prompt, positions, own in zip(prompts, hidden, spans, strict=True)
        ]
        # Before Llama, which stays on the device then: a word that learns at its input needs it in the backward pass.
        pooled = self._counted("text_encoder_2")(clip_ids(self._part("tokenizer_2"), shown).to(self._device))
        text, length = self._llama_rows(prompts, hidden)
        return Conditioning(
            {
                "text": text,
                "length": length,
                "pooled": pooled.pooler_output.float().cpu(),
                "guidance": torch.full((len(prompts),), NO_GUIDANCE),
            }
        )

    def _llama_rows(self, prompts: Sequence[str], hidden: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        ids, mask = padded_ids(self._tokenizer, prompts)
        length = mask[:, CROP:].sum(dim=1)
        for row, positions in enumerate(hidden):
            ids[row, [CROP + position for position in positions]] = self._token_id(self.sentinel(HIDDEN_SENTINEL))
        # Llama is causal: rows after the longest prompt change nothing before them. In half precision another
        # number of rows could still show, so it sees all.
        seen = int(length.max()) if self._dtype == torch.float32 else TEXT_ROWS
        states = self._text_encoder(
            input_ids=ids[:, : CROP + seen].to(self._device),
            attention_mask=mask[:, : CROP + seen].to(self._device),
            output_hidden_states=True,
        ).hidden_states[-(_LAYERS_SKIPPED + 1)]
        text = torch.zeros(len(prompts), TEXT_ROWS, states.shape[-1])
        text[:, :seen] = states[:, CROP:].float().cpu() * mask[:, CROP : CROP + seen, None]
        return text, length
