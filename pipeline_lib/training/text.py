"""Text conditioning made beforehand, with text-token masking (Set-and-Sequence, section 4.3).

Masking rows of a cached encoding would leak a hidden word through its neighbours, since the encoder
has mixed them already. So each prompt is encoded anew with a sentinel in the place of every hidden
token, a number of times, and then the encoder can go. Only words that are learned at the encoder's input
need it in every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline_lib.models.base import BaseModel, Conditioning
from pipeline_lib.seeding import generator
from pipeline_lib.training.data import LEARNED_WORDS, TextBank, sentinels

ENCODING_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class TokenDropSettings:
    """Text-token masking.

    Attributes:
        probability: of each token, on its own; 0 hides nothing.
        variants: encodings per prompt, the whole prompt included.
    """

    probability: float
    variants: int


def draw_hidden(count: int, probability: float, draw: torch.Generator) -> tuple[int, ...]:
    """Positions to hide among `count` tokens; never all of them."""
    hidden = torch.rand(count, generator=draw) < probability
    if count and bool(hidden.all()):
        hidden[int(torch.randint(count, (1,), generator=draw))] = False
    return tuple(torch.nonzero(hidden).flatten().tolist())


def encode_texts(
    base: BaseModel, prompts: Sequence[str], drop: TokenDropSettings, learned: Mapping[str, str], seed: int
) -> TextBank:
    """Encodes prompts and their masked variants.

    Args:
        base: its text encoder is used, and not freed.
        prompts: as the encoder sees them, sentinels in place.
        drop: how tokens are hidden.
        learned: name of each learned word to the sentinel that stands for it in the prompts.
        seed: of the hidden positions.

    Returns:
        `variants` rows per prompt (one where nothing is hidden).
    """
    variants = drop.variants if drop.probability > 0 else 1
    spans = [base.token_spans(prompt) for prompt in prompts]
    texts, hidden = [], []
    for index, prompt in enumerate(prompts):
        for variant in range(variants):
            texts.append(prompt)
            draw = generator(seed, "token-drop", index, variant)
            hidden.append(draw_hidden(len(spans[index]), drop.probability, draw) if variant else ())
    starts = range(0, len(texts), ENCODING_BATCH)
    parts = [
        base.compact(base.encode_text(texts[i : i + ENCODING_BATCH], hidden[i : i + ENCODING_BATCH])) for i in starts
    ]
    where = {
        word: tuple(
            tuple(
                sorted(set(_positions(prompts[row // variants], spans[row // variants], sentinel)) - set(hidden[row]))
            )
            for row in range(len(texts))
        )
        for word, sentinel in learned.items()
    }
    counts = tuple(len(span) for span in spans)
    scale = base.text_embedding_rms if learned else 0.0
    return TextBank(tuple(prompts), variants, Conditioning.cat(parts), where, counts, scale)


def _positions(prompt: str, spans: Sequence[tuple[int, int]], word: str) -> list[int]:
    start = prompt.find(word)
    if start < 0:
        return []
    stop = start + len(word)
    return [index for index, (low, high) in enumerate(spans) if low < stop and high > start]


def with_learned(base: BaseModel, bank: TextBank, rows: Sequence[int], vectors: Mapping[str, Tensor]) -> Conditioning:
    """Rows of a bank with the learned words' vectors put in; differentiable in the vectors.

    Args:
        base: knows where a row's tokens are.
        bank: the encoded prompts.
        rows: which rows, may repeat.
        vectors: learned word to its vector, shape (text_dim,).

    Returns:
        One row per entry of `rows`.
    """
    conditioning = bank.conditioning.take(rows)
    for word, vector in vectors.items():
        if word in bank.learned:
            positions = [bank.learned[word][row] for row in rows]
            conditioning = base.replace_rows(conditioning, positions, vector)
    return conditioning


def encode_live(
    base: BaseModel,
    bank: TextBank,
    rows: Sequence[int],
    hidden: Sequence[tuple[int, ...]],
    vectors: Mapping[str, Tensor],
) -> Conditioning:
    """Rows of a bank encoded anew with words that are learned at the encoder's input; differentiable in these.

    Args:
        base: its text encoder is used.
        bank: whose prompts; it has no masked variants.
        rows: which rows, may repeat.
        hidden: for each row the token positions to hide.
        vectors: learned word to its input embedding, shape (text_dim,).

    Returns:
        One row per entry of `rows`.
    """
    wanted = [(bank.prompts[row // bank.variants], places) for row, places in zip(rows, hidden, strict=True)]
    different = list(dict.fromkeys(wanted))
    words = {spelt: vectors[word] for word, spelt in sentinels(base, vectors).items()}
    encoded = base.encode_text([prompt for prompt, _ in different], [places for _, places in different], words)
    return base.compact(encoded).take([different.index(one) for one in wanted])


def input_starts(base: BaseModel, prompts: Sequence[str], words: Sequence[str]) -> dict[str, Tensor]:
    """Where words learned at the encoder's input start: as what they stand before in the prompts.

    The paper is silent; this is textual inversion's class-noun start (Gal et al. 2022), and the same for a
    motion: a subject's word stands before the class noun, a motion's before the motion phrase.

    Args:
        base: its input embeddings are read.
        prompts: with the words' sentinels in place.
        words: of :data:`pipeline_lib.training.data.LEARNED_WORDS`.

    Returns:
        For each word the mean embedding of the tokens from it up to the next comma, over all prompts; of the
        whole prompts' tokens where nothing follows it.
    """
    places = sentinels(base, LEARNED_WORDS)
    taken = {
        word: [_following(base, prompt, places[word], tuple(places.values())) for prompt in prompts] for word in words
    }
    return {word: torch.cat(rows).mean(0) for word, rows in taken.items()}


def _following(base: BaseModel, prompt: str, word: str, others: Sequence[str]) -> Tensor:
    spans, rows = base.token_spans(prompt), base.token_embeddings(prompt)
    start = prompt.find(word) + len(word) if word in prompt else len(prompt)
    stop = start + len(prompt[start:].partition(",")[0])
    plain = [index for index, (low, high) in enumerate(spans) if prompt[low:high] not in others]
    after = [index for index in plain if start <= spans[index][0] and spans[index][1] <= stop]
    return rows[after or plain]
