"""Learned words: vectors that stand where a sentinel token stands, in the text encoder's output or in its input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from pipeline_lib.errors import InputError
from pipeline_lib.models.attachment import Attachment
from pipeline_lib.storage.tensors import read_tensors, save_tensors

TokenMode = Literal["encoder_output", "encoder_input"]
_MODE = "special_tokens"


@dataclass(frozen=True)
class LearnedTokens:
    """Words of a concept and the sentinels that stand for them in prompts.

    Attributes:
        vectors: word to its vector (text_dim,), float32.
        sentinels: word to the sentinel, e.g. "v" to "<extra_id_0>".
        mode: what the vectors replace: the sentinel's row of the encoder's output, or its input embedding
            (textual inversion).
    """

    vectors: Mapping[str, Tensor]
    sentinels: Mapping[str, str]
    mode: TokenMode = "encoder_output"

    def save(self, path: Path) -> None:
        """Writes one safetensors file: a tensor per word; the sentinels, and a mode of inputs, in its header."""
        vectors = {word: vector.detach().float().cpu() for word, vector in self.vectors.items()}
        told = {} if self.mode == "encoder_output" else {_MODE: self.mode}
        save_tensors(path, vectors, {**self.sentinels, **told})

    @staticmethod
    def load(path: Path) -> LearnedTokens:
        """Reads what :meth:`save` wrote.

        Args:
            path: of the file.

        Returns:
            The words, float32 on the CPU.

        Raises:
            InputError: unreadable, an unknown mode, a word without a sentinel, or a vector that is none.
        """
        vectors, header = read_tensors(path)
        mode = header.get(_MODE, "encoder_output")
        if mode not in get_args(TokenMode):
            raise InputError(
                f"{path} holds words of an unknown kind", got=mode, expected=" or ".join(get_args(TokenMode))
            )
        for word, vector in vectors.items():
            if word not in header:
                raise InputError(f"{path} names no sentinel for {word!r}")
            if vector.dim() != 1 or not torch.isfinite(vector).all():
                raise InputError(f"{path} holds no finite vector for {word!r}", got=f"shape {tuple(vector.shape)}")
        return LearnedTokens(vectors, {word: header[word] for word in vectors}, mode)  # type: ignore[arg-type]

    def attach(self, text_encoder: Any, tokenizer: Any) -> Attachment:
        """Puts the vectors into a live text encoder until the attachment is removed.

        Forward hooks, so that whoever calls the encoder (a stock pipeline's `encode_prompt`) needs no
        change, and its padding and trimming stay its own. The sentinels are tokens already, so for words at
        the input too neither the tokenizer nor the embedding matrix (gigabytes on a real base) is changed.

        Args:
            text_encoder: a transformers encoder called with the token ids first.
            tokenizer: that makes the ids.

        Returns:
            What takes them out again.

        Raises:
            InputError: the tokenizer does not know a sentinel, or a vector has another width.
        """
        by_id: dict[int, Tensor] = {}
        width = text_encoder.get_input_embeddings().embedding_dim
        for word, vector in self.vectors.items():
            token = tokenizer.convert_tokens_to_ids(self.sentinels[word])
            if token is None or token == tokenizer.unk_token_id:
                raise InputError(f"this base's tokenizer does not know {self.sentinels[word]}")
            if vector.shape[0] != width:
                raise InputError(
                    f"the learned word {word!r} was trained on another text encoder",
                    got=f"width {vector.shape[0]}",
                    expected=f"width {width}",
                )
            by_id[token] = vector
        return (put_at_input if self.mode == "encoder_input" else _put_at_output)(text_encoder, by_id)


def put_at_input(text_encoder: Any, by_id: Mapping[int, Tensor]) -> Attachment:
    """Replaces input embeddings until the attachment is removed; differentiable in the vectors.

    Args:
        text_encoder: a transformers encoder; it may hold its embedding more than once, with tied weights.
        by_id: token id to the vector (text_dim,) that takes the place of its embedding.

    Returns:
        What takes them out again.
    """
    shape = text_encoder.get_input_embeddings().weight.shape

    def replace(_module: Any, inputs: tuple[Any, ...], embedded: Tensor) -> Tensor:
        return _replaced(embedded, inputs[0], by_id)

    tables = [part for part in text_encoder.modules() if isinstance(part, nn.Embedding) and part.weight.shape == shape]
    return Attachment([table.register_forward_hook(replace) for table in tables])


def _put_at_output(text_encoder: Any, by_id: Mapping[int, Tensor]) -> Attachment:
    def replace(_module: Any, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        ids = inputs[0] if inputs else named["input_ids"]
        output.last_hidden_state = _replaced(output.last_hidden_state, ids, by_id)
        if output.hidden_states is not None:  # asked for where a family's text is an earlier layer's (HunyuanVideo)
            output.hidden_states = tuple(_replaced(states, ids, by_id) for states in output.hidden_states)
        return output

    return Attachment([text_encoder.register_forward_hook(replace, with_kwargs=True)])


def _replaced(rows: Tensor, ids: Tensor, by_id: Mapping[int, Tensor]) -> Tensor:
    for token, vector in by_id.items():
        rows = torch.where((ids == token)[..., None], vector.to(rows), rows)
    return rows
