"""The Wan family: Wan 2.1 text-to-video, and every folder of the same classes."""

from __future__ import annotations

import copy
import gc
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import WanPipeline
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from torch import Tensor, nn

from pipeline_lib.errors import InputError, ResourceError
from pipeline_lib.models.attachment import Attachment
from pipeline_lib.models.base import Conditioning, FamilySpec
from pipeline_lib.models.folder import PipelineFolder
from pipeline_lib.models.learned_tokens import put_at_input
from pipeline_lib.models.wan_attention import CollapsedPadding, rows_needed
from pipeline_lib.models.wan_spec import FRAMES_PER_CHUNK, check_variant, family_spec
from pipeline_lib.models.wan_text import TEXT_ROWS, own_tokens, token_spans

HIDDEN_SENTINEL = 15  # clear of the sentinels that learned tokens take, from 0 on
_ENCODE_AT_ONCE = 16
_PROBES = ("a dog", "a red creature is running on the beach", "a photo of a person in a city street at night")


class WanBase:
    """A Wan 2.1 text-to-video base; see :class:`pipeline_lib.models.base.BaseModel` for the contract.

    Every part is loaded when it is first used, so that training on cached latents and text never
    loads an encoder. The autoencoder stays in float32, as the stock documentation has it.

    Args:
        folder: the diffusers folder.
        source: what the user asked for.
        device: where all parts go.
        dtype: of the transformer and the text encoder.

    Raises:
        InputError: a variant that is not text-to-video Wan 2.1, or configs that contradict each other.

    Attributes:
        encoder_calls: how often the text encoder ran or a video was encoded, ever.
    """

    def __init__(self, folder: PipelineFolder, source: str, device: torch.device, dtype: torch.dtype) -> None:
        check_variant(folder)
        self._folder, self._source, self._device, self._dtype = folder, source, device, dtype
        self._spec = family_spec(folder)
        self._parts: dict[str, Any] = {}
        self._padding: CollapsedPadding | None = None
        self._embedding_rms: float | None = None
        self.encoder_calls = 0

    @property
    def spec(self) -> FamilySpec:
        """The family's data, with this checkpoint's own frame rules."""
        return self._spec

    @property
    def source(self) -> str:
        """Folder or hub id that it was loaded from."""
        return self._source

    @property
    def digest(self) -> str:
        """SHA-256 over the weight files and configs."""
        return self._folder.digest()

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """The transformer's dtype."""
        return self._dtype

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

    @property
    def text_embedding_rms(self) -> float:
        """Root mean square over the rows of three fixed prompts."""
        if self._embedding_rms is None:
            probes = self.encode_text(_PROBES)
            rows = torch.cat([text[:n] for text, n in zip(*map(probes.tensors.get, ("text", "length")), strict=True)])
            self._embedding_rms = float(rows.square().mean().sqrt())
        return self._embedding_rms

    @torch.no_grad()
    def encode_video(self, pixels: Tensor) -> Tensor:
        """Raises InputError for frame counts or sides that the autoencoder would cut off."""
        _, _, frames, height, width = pixels.shape
        rules = self._spec.frame_rules
        if (frames - 1) % FRAMES_PER_CHUNK or height % rules.size_multiple or width % rules.size_multiple:
            raise InputError(
                "a clip does not fit the autoencoder",
                got=f"{frames} frames of {width}×{height}",
                expected=f"1 + {FRAMES_PER_CHUNK}k frames, sides that are multiples of {rules.size_multiple}",
            )
        self.encoder_calls += 1
        vae = self._vae
        # One clip at a time: memory, and no clip's bits depend on its neighbours.
        modes = [vae.encode(clip[None].to(self._device, vae.dtype)).latent_dist.mode() for clip in pixels]
        mean, inverse_std = self._latent_statistics()
        return ((torch.cat(modes).float() - mean) * inverse_std).cpu()

    @torch.no_grad()
    def decode_video(self, latents: Tensor) -> Tensor:
        """Stock arithmetic; see the contract."""
        vae = self._vae
        mean, inverse_std = self._latent_statistics()
        raw = latents.to(self._device, vae.dtype) / inverse_std + mean
        return torch.cat([vae.decode(clip[None], return_dict=False)[0] for clip in raw]).float().cpu()

    def encode_text(
        self,
        prompts: Sequence[str],
        hidden: Sequence[Sequence[int]] | None = None,
        words: Mapping[str, Tensor] | None = None,
    ) -> Conditioning:
        """`text` (batch, 512, d), zero beyond each prompt, and `length` (batch,)."""
        hidden = hidden or [()] * len(prompts)
        ids = {self._token_id(word): vector for word, vector in (words or {}).items()}
        attached = put_at_input(self._text_encoder, ids) if ids else Attachment()
        try:
            with torch.set_grad_enabled(bool(ids) and torch.is_grad_enabled()):
                parts = [
                    self._encode_some(prompts[start : start + _ENCODE_AT_ONCE], hidden[start : start + _ENCODE_AT_ONCE])
                    for start in range(0, len(prompts), _ENCODE_AT_ONCE)
                ]
        finally:
            attached.remove()
        return Conditioning.cat(parts)

    def token_spans(self, prompt: str) -> list[tuple[int, int]]:
        """Spans are of the prompt as given, though the tokenizer sees the cleaned one; no leading spaces."""
        return token_spans(self._tokenizer, prompt)

    @torch.no_grad()
    def token_embeddings(self, prompt: str) -> Tensor:
        """Of the tokens that the tokenizer makes of the cleaned prompt."""
        ids = torch.tensor(own_tokens(self._tokenizer, prompt), device=self._device, dtype=torch.long)
        return self._text_encoder.get_input_embeddings()(ids).float().cpu()

    def replace_rows(
        self, conditioning: Conditioning, positions: Sequence[Sequence[int]], vector: Tensor
    ) -> Conditioning:
        """Positions count tokens, as in :meth:`token_spans`."""
        text = conditioning.tensors["text"]
        chosen = torch.zeros(text.shape[:2], dtype=torch.bool)
        for row, tokens in enumerate(positions):
            chosen[row, list(tokens)] = True
        replaced = torch.where(chosen.to(text.device)[..., None], vector.to(text.device, text.dtype), text)
        return Conditioning({**conditioning.tensors, "text": replaced})

    def compact(self, conditioning: Conditioning) -> Conditioning:
        """512 rows become a few dozen; a copy, so that the 512 can go."""
        text, length = conditioning.tensors["text"], conditioning.tensors["length"]
        rows = rows_needed(int(length.max()), TEXT_ROWS)
        return Conditioning({**conditioning.tensors, "text": text[:, :rows].clone()})

    def sentinel(self, index: int) -> str:
        """Raises InputError where the tokenizer has no such sentinel."""
        word = f"<extra_id_{index}>"
        if self._tokenizer.convert_tokens_to_ids(word) in (None, self._tokenizer.unk_token_id):
            raise InputError(f"the tokenizer of {self._source} does not know {word}")
        return word

    def velocity(self, noisy: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        """Text may be padded to 512 rows or compacted; see the contract."""
        text = conditioning.tensors["text"].to(self._device, self._dtype)
        lengths = conditioning.tensors["length"].to(self._device)
        timestep = sigma.to(self._device, torch.float32) * self._scheduler.config.num_train_timesteps
        return self.padding.velocity(noisy.to(self._device, self._dtype), timestep, text, lengths).to(noisy.dtype)

    def blocks(self) -> Sequence[nn.Module]:
        """The repeated transformer blocks, in order."""
        return list(self.transformer.blocks)

    def experts(self) -> Sequence[tuple[tuple[float, float], nn.Module]]:
        """The one denoiser, over all sigmas."""
        return [((0.0, 1.0), self.transformer)]

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recomputes each block's activations in the backward pass, or not."""
        self.padding.set_gradient_checkpointing(enabled)

    def free_encoders(self) -> None:
        """The tokenizer is kept; it is small."""
        for name in ("vae", "text_encoder"):
            self._parts.pop(name, None)
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def pipeline(self) -> WanPipeline:
        """The stock pipeline over the same modules, with a scheduler of its own."""
        return WanPipeline(
            tokenizer=self._tokenizer,
            text_encoder=self._text_encoder,
            vae=self._vae,
            scheduler=copy.deepcopy(self._scheduler),
            transformer=self.transformer,
        )

    @property
    def _tokenizer(self) -> Any:
        if "tokenizer" not in self._parts:
            self._parts["tokenizer"] = self._folder.load("tokenizer")
        return self._parts["tokenizer"]

    @property
    def _scheduler(self) -> Any:
        if "scheduler" not in self._parts:
            self._parts["scheduler"] = self._folder.load("scheduler")
        return self._parts["scheduler"]

    @property
    def _text_encoder(self) -> Any:
        if "text_encoder" not in self._parts:
            module = self._module("text_encoder", self._dtype)
            module.register_forward_pre_hook(self._count_call)
            self._parts["text_encoder"] = module
        return self._parts["text_encoder"]

    @property
    def _vae(self) -> Any:
        if "vae" not in self._parts:
            self._parts["vae"] = self._module("vae", torch.float32)
        return self._parts["vae"]

    def _module(self, part: str, dtype: torch.dtype) -> nn.Module:
        option = "torch_dtype" if self._folder.parts[part][0] == "diffusers" else "dtype"
        module: nn.Module = self._folder.load(part, **{option: dtype})
        try:
            return module.to(self._device).eval().requires_grad_(False)
        except torch.OutOfMemoryError as error:
            raise ResourceError(f"the {part} of {self._source} does not fit on {self._device}: {error}") from error

    def _count_call(self, _module: nn.Module, _inputs: object) -> None:
        self.encoder_calls += 1

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

    def _token_id(self, word: str) -> int:
        return int(self._tokenizer.convert_tokens_to_ids(word))
