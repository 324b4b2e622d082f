"""Learned words: vectors that stand in the text encoder's output where a sentinel token was encoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from pipeline_lib.errors import InputError
from pipeline_lib.storage.tensors import read_tensors, save_tensors


@dataclass(frozen=True)
class LearnedTokens:
    """Words of a concept and the sentinels that stand for them in prompts.

    Attributes:
        vectors: word to its vector (text_dim,), float32.
        sentinels: word to the sentinel, e.g. "v" to "<extra_id_0>".
    """

    vectors: Mapping[str, Tensor]
    sentinels: Mapping[str, str]

    def save(self, path: Path) -> None:
        """Writes one safetensors file: a tensor per word, the sentinels in its header."""
        vectors = {word: vector.detach().float().cpu() for word, vector in self.vectors.items()}
        save_tensors(path, vectors, self.sentinels)

    @staticmethod
    def load(path: Path) -> LearnedTokens:
        """Reads what :meth:`save` wrote.

        Args:
            path: of the file.

        Returns:
            The words, float32 on the CPU.

        Raises:
            InputError: unreadable, a word without a sentinel, or a vector that is none.
        """
        vectors, sentinels = read_tensors(path)
        for word, vector in vectors.items():
            if word not in sentinels:
                raise InputError(f"{path} names no sentinel for {word!r}")
            if vector.dim() != 1 or not torch.isfinite(vector).all():
                raise InputError(f"{path} holds no finite vector for {word!r}", got=f"shape {tuple(vector.shape)}")
        return LearnedTokens(vectors, {word: sentinels[word] for word in vectors})

    def attach(self, text_encoder: Any, tokenizer: Any) -> RemovableHandle:
        """Puts the vectors into every output of a live text encoder until the handle is removed.

        A forward hook, so that whoever calls the encoder (a stock pipeline's `encode_prompt`) needs no
        change, and its padding and trimming stay its own.

        Args:
            text_encoder: a transformers encoder called with the token ids first.
            tokenizer: that makes the ids.

        Returns:
            The hook's handle.

        Raises:
            InputError: the tokenizer does not know a sentinel, or a vector has another width.
        """
        by_id: dict[int, Tensor] = {}
        for word, vector in self.vectors.items():
            token = tokenizer.convert_tokens_to_ids(self.sentinels[word])
            if token is None or token == tokenizer.unk_token_id:
                raise InputError(f"this base's tokenizer does not know {self.sentinels[word]}")
            if vector.shape[0] != text_encoder.config.d_model:
                raise InputError(
                    f"the learned word {word!r} was trained on another text encoder",
                    got=f"width {vector.shape[0]}",
                    expected=f"width {text_encoder.config.d_model}",
                )
            by_id[token] = vector

        def replace(_module: Any, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
            ids = inputs[0] if inputs else named["input_ids"]
            states = output.last_hidden_state
            for token, vector in by_id.items():
                states = torch.where((ids == token)[..., None], vector.to(states), states)
            output.last_hidden_state = states
            return output

        handle: RemovableHandle = text_encoder.register_forward_hook(replace, with_kwargs=True)
        return handle
