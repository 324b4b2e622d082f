"""The tokens of a user's prompt, and where in the prompt each came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class OwnTokens:
    """The tokens of one prompt, without what a tokenizer or a template adds; the index is the row of the text.

    Attributes:
        ids: token ids.
        spans: characters `[start, stop)` of the prompt, without leading spaces.
    """

    ids: list[int]
    spans: list[tuple[int, int]]


def own_tokens(tokenizer: Any, text: str, rows: int) -> OwnTokens:
    """Cuts a text into tokens.

    Args:
        tokenizer: a fast one.
        text: as the tokenizer is to see it.
        rows: tokens that are read at most, those that the tokenizer adds included.

    Returns:
        The text's own tokens.
    """
    encoding = tokenizer(text, return_offsets_mapping=True, truncation=True, max_length=rows)
    own = [place for place, part in enumerate(encoding.sequence_ids(0)) if part == 0]
    return OwnTokens(
        [encoding["input_ids"][place] for place in own],
        [without_leading_spaces(text, *encoding["offset_mapping"][place]) for place in own],
    )


def without_leading_spaces(text: str, start: int, stop: int) -> tuple[int, int]:
    """A word piece's span includes the space before it; a piece that is a space alone keeps its last one."""
    while start < stop - 1 and text[start].isspace():
        start += 1
    return start, stop
