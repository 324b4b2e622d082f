"""How the stock Wan pipeline reads a prompt: cleaned, cut into tokens, and where each token came from."""

from __future__ import annotations

import difflib
from typing import Any

from diffusers.pipelines.wan.pipeline_wan import prompt_clean

TEXT_ROWS = 512  # the stock call's max_sequence_length


def own_tokens(tokenizer: Any, prompt: str) -> list[int]:
    """Ids of a prompt's tokens, the end-of-text token left out."""
    encoding = _encoded(tokenizer, prompt_clean(prompt))
    return [token for token, part in zip(encoding["input_ids"], encoding.sequence_ids(0), strict=True) if part == 0]


def token_spans(tokenizer: Any, prompt: str) -> list[tuple[int, int]]:
    """Character spans of the same tokens in the prompt as given, without leading spaces.

    Args:
        tokenizer: a fast one.
        prompt: as a person wrote it; the tokenizer sees it cleaned.

    Returns:
        One `[start, stop)` for each token.
    """
    cleaned = prompt_clean(prompt)
    encoding = _encoded(tokenizer, cleaned)
    own = [span for span, part in zip(encoding["offset_mapping"], encoding.sequence_ids(0), strict=True) if part == 0]
    origins = _origins(prompt, cleaned)
    spans = []
    for start, stop in own:
        while start < stop - 1 and cleaned[start].isspace():
            start += 1  # noqa: PLW2901 - a word piece's span includes the space before it
        spans.append((origins[start][0], origins[stop - 1][1]))
    return spans


def _encoded(tokenizer: Any, cleaned: str) -> Any:
    return tokenizer(cleaned, return_offsets_mapping=True, truncation=True, max_length=TEXT_ROWS)


def _origins(original: str, cleaned: str) -> list[tuple[int, int]]:
    """For each character of `cleaned` the span in `original` that it came from."""
    matcher = difflib.SequenceMatcher(a=original, b=cleaned, autojunk=False)
    spans: list[tuple[int, int]] = []
    for kind, start, stop, to_start, to_stop in matcher.get_opcodes():
        if kind == "equal":
            spans += [(start + offset, start + offset + 1) for offset in range(to_stop - to_start)]
        else:
            spans += [(start, stop)] * (to_stop - to_start)
    return spans
