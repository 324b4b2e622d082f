"""What all families have in common: parts of one diffusers folder, loaded when they are first used."""

from __future__ import annotations

import copy
import gc
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pipeline_lib.errors import InputError, ResourceError
from pipeline_lib.models.attachment import Attachment
from pipeline_lib.models.base import Conditioning, FamilySpec
from pipeline_lib.models.economy import Economy
from pipeline_lib.models.folder import PipelineFolder
from pipeline_lib.models.frame_limits import check_video
from pipeline_lib.models.learned_tokens import put_at_input
from pipeline_lib.models.lora_file import UsedLora
from pipeline_lib.models.lora_use import layers_on, merge
from pipeline_lib.models.prompt_tokens import OwnTokens
from pipeline_lib.models.recompute import recomputing
from pipeline_lib.models.triple import SECOND_EXPERT
from pipeline_lib.models.visits import Visits

HIDDEN_SENTINEL = 15  # clear of the sentinels that learned tokens take, from 0 on
_ENCODE_AT_ONCE = 16
_PROBES = ("a dog", "a red creature is running on the beach", "a photo of a person in a city street at night")


class DiffusersBase(ABC):
    """One diffusers folder behind the verbs of :class:`pipeline_lib.models.base.BaseModel`.

    A family says how its latents, text and time steps go; everything here is the same for all. Every part is loaded
    when it is first used, so that training on cached latents and text never loads an encoder.

    Text conditioning has the names `text` (batch, rows, d), zero beyond each prompt, and `length` (batch,), beside
    what a family adds.

    Args:
        folder: the diffusers folder.
        source: what the user asked for.
        device: where all parts go.
        dtype: of the denoiser and the text encoders.
        spec: the family's data.

    Attributes:
        encoder_calls: how often a text encoder ran or a video was encoded, ever.
        economy: how denoisers are kept; takes effect when one is loaded.
        visits: which encoder is on the device; at most one is, and none while a denoiser works without gradients.
        loras: LoRA files of others, merged into a denoiser when it is loaded.
        ENCODERS: parts that :meth:`free_encoders` drops.
        BLOCK_LISTS: names of a denoiser's lists of repeated blocks, in the order of the forward pass.
        VAE_DTYPE: of the autoencoder; None: that of the denoiser.
    """

    ENCODERS: ClassVar[tuple[str, ...]] = ("vae", "text_encoder")
    BLOCK_LISTS: ClassVar[tuple[str, ...]] = ("transformer_blocks",)
    VAE_DTYPE: ClassVar[torch.dtype | None] = None

    def __init__(
        self, folder: PipelineFolder, source: str, device: torch.device, dtype: torch.dtype, spec: FamilySpec
    ) -> None:
        self._folder, self._source, self._device, self._dtype = folder, source, device, dtype
        self._spec = spec
        self._parts: dict[str, Any] = {}
        self._embedding_rms: float | None = None
        self.encoder_calls = 0
        self.economy = Economy()
        self.visits = Visits(device)
        self.loras: Sequence[UsedLora] = ()

    @property
    def spec(self) -> FamilySpec:
        """The family's data, with this checkpoint's own frame rules."""
        return self._spec

    @property
    def source(self) -> str:
        """Folder or hub id that it was loaded from."""
        return self._source

    @property
    def folder(self) -> PipelineFolder:
        """Its files."""
        return self._folder

    @property
    def digest(self) -> str:
        """SHA-256 over the weight files and configs."""
        return self._folder.digest()

    @property
    def device(self) -> torch.device:
        """Where the denoiser is."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """The denoiser's dtype."""
        return self._dtype

    @property
    def transformer(self) -> Any:
        """The denoiser."""
        return self._module("transformer", self._dtype)

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
        """One clip at a time: memory, and no clip's bits depend on its neighbours.

        Raises InputError for frame counts or sides that the autoencoder would cut off.
        """
        self._check_clip(pixels)
        self.encoder_calls += 1
        vae = self._vae
        return torch.cat([self._encode_clip(clip[None].to(self._device, vae.dtype)) for clip in pixels]).cpu()

    @torch.no_grad()
    def decode_video(self, latents: Tensor) -> Tensor:
        """Stock arithmetic; see the contract."""
        vae = self._vae
        return torch.cat([self._decode_clip(clip[None].to(self._device, vae.dtype)) for clip in latents]).float().cpu()

    def encode_text(
        self,
        prompts: Sequence[str],
        hidden: Sequence[Sequence[int]] | None = None,
        words: Mapping[str, Tensor] | None = None,
    ) -> Conditioning:
        """Names as the class tells; see the contract."""
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
        """Without leading spaces; see the contract."""
        return self._own_tokens(prompt).spans

    @torch.no_grad()
    def token_embeddings(self, prompt: str) -> Tensor:
        """See the contract."""
        table = self._text_encoder.get_input_embeddings()
        ids = torch.tensor(self._own_tokens(prompt).ids, device=table.weight.device, dtype=torch.long)
        embeddings: Tensor = table(ids).float().cpu()
        return embeddings

    def replace_rows(
        self, conditioning: Conditioning, positions: Sequence[Sequence[int]], vector: Tensor
    ) -> Conditioning:
        """Positions count tokens, as in `token_spans`."""
        text = conditioning.tensors["text"]
        chosen = torch.zeros(text.shape[:2], dtype=torch.bool)
        for row, tokens in enumerate(positions):
            chosen[row, list(tokens)] = True
        replaced = torch.where(chosen.to(text.device)[..., None], vector.to(text.device, text.dtype), text)
        return Conditioning({**conditioning.tensors, "text": replaced})

    def compact(self, conditioning: Conditioning) -> Conditioning:
        """Unchanged, where a family has no use for less padding."""
        return conditioning

    def sentinel(self, index: int) -> str:
        """Raises InputError where the tokenizer has no such sentinel."""
        word = self._sentinel_word(index)
        if self._tokenizer.convert_tokens_to_ids(word) in (None, self._tokenizer.unk_token_id):
            raise InputError(f"the tokenizer of {self._source} does not know {word}")
        return word

    def blocks(self) -> Sequence[nn.Module]:
        """The repeated blocks, in order; those of one expert after those of the other."""
        return [block for _, denoiser in self.experts() for block in self._blocks_of(denoiser)]

    def experts(self) -> Sequence[tuple[tuple[float, float], nn.Module]]:
        """The one denoiser, over all sigmas."""
        return [((0.0, 1.0), self.transformer)]

    def set_gradient_checkpointing(self, enabled: bool, *, keep_attention: bool = False) -> None:
        """Recomputes each block's activations in the backward pass, or not."""
        for _, denoiser in self.experts():
            stock: Any = denoiser
            if enabled:
                stock.enable_gradient_checkpointing(recomputing(keep_attention=keep_attention))
            else:
                stock.disable_gradient_checkpointing()

    def free_encoders(self) -> None:
        """Tokenizers are kept; they are small."""
        self.visits.leave()
        for name in self.ENCODERS:
            self._parts.pop(name, None)
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _blocks_of(self, denoiser: nn.Module) -> list[nn.Module]:
        return [block for name in self.BLOCK_LISTS for block in denoiser.get_submodule(name).children()]

    @abstractmethod
    def _encode_clip(self, pixels: Tensor) -> Tensor:
        """Normalised latents (1, c, t, h, w), float32, of one clip on the device."""

    @abstractmethod
    def _decode_clip(self, latents: Tensor) -> Tensor:
        """Pixels of one clip's normalised latents, both on the device, in the autoencoder's dtype."""

    @abstractmethod
    def _encode_some(self, prompts: Sequence[str], hidden: Sequence[Sequence[int]]) -> Conditioning:
        """Encodes a few prompts, with a sentinel in the place of hidden tokens."""

    @abstractmethod
    def _own_tokens(self, prompt: str) -> OwnTokens:
        """The tokens that stand for a prompt, in the order of the text's rows."""

    def _padded_ids(self, texts: Sequence[str], hidden: Sequence[Sequence[int]], rows: int) -> tuple[Tensor, Tensor]:
        """Ids and mask (batch, rows) of texts as a T5 pipeline cuts and pads them, hidden tokens covered."""
        tokens = self._tokenizer(
            list(texts), padding="max_length", max_length=rows, truncation=True, return_tensors="pt"
        )
        ids, mask = tokens.input_ids, tokens.attention_mask
        for row, positions in enumerate(hidden):
            assert all(position < mask[row].sum() - 1 for position in positions), "a hidden position is no token's"
            ids[row, list(positions)] = self._token_id(self.sentinel(HIDDEN_SENTINEL))
        return ids, mask

    def _sentinel_word(self, index: int) -> str:
        return f"<extra_id_{index}>"

    def _token_id(self, word: str) -> int:
        return int(self._tokenizer.convert_tokens_to_ids(word))

    @property
    def _tokenizer(self) -> Any:
        return self._part("tokenizer")

    @property
    def _text_encoder(self) -> Any:
        return self._counted("text_encoder")

    @property
    def _vae(self) -> Any:
        return self._module("vae", self.VAE_DTYPE or self._dtype)

    @property
    def _scheduler(self) -> Any:
        return self._part("scheduler")

    def _fresh_scheduler(self) -> Any:
        """A stock pipeline steps through its scheduler, so it gets one of its own."""
        return copy.deepcopy(self._scheduler)

    def _part(self, name: str) -> Any:
        """A tokenizer or a scheduler."""
        if name not in self._parts:
            self._parts[name] = self._folder.load(name)
        return self._parts[name]

    def _counted(self, name: str) -> Any:
        """A text encoder; its calls are counted."""
        if name not in self._parts:
            self._module(name, self._dtype).register_forward_pre_hook(self._count_call)
        return self._parts[name]

    def _module(self, name: str, dtype: torch.dtype) -> Any:
        """A frozen network: a denoiser on the device, an encoder on the host until it is called."""
        if name not in self._parts:
            option = "torch_dtype" if self._folder.parts[name][0] == "diffusers" else "dtype"
            module: nn.Module = self._folder.load(name, **{option: dtype})
            module.eval().requires_grad_(False)
            try:
                if name.startswith("transformer"):
                    prefix = SECOND_EXPERT if name == "transformer_2" else ""
                    merge(module, layers_on(self.loras, self._spec.name, prefix, module))
                    self.visits.leave()
                    self.economy.settle(module, self._blocks_of(module), self._device, dtype)
                    module.register_forward_pre_hook(self._alone)
                else:
                    self.visits.invite(module)
            except torch.OutOfMemoryError as error:
                raise ResourceError(f"the {name} of {self._source} does not fit on {self._device}: {error}") from error
            self._parts[name] = module
        return self._parts[name]

    def _alone(self, _denoiser: nn.Module, _inputs: object) -> None:
        # With gradients a text encoder may be part of the step, and of its backward pass; the model's own estimate is
        # made without them in the middle of such a step.
        if not (torch.is_grad_enabled() or self.visits.in_graph):
            self.visits.leave()

    def _count_call(self, _module: nn.Module, _inputs: object) -> None:
        self.encoder_calls += 1

    def _check_clip(self, pixels: Tensor) -> None:
        _, _, frames, height, width = pixels.shape
        check_video("a clip does not fit the autoencoder", frames, width, height, self._spec.frame_rules)
