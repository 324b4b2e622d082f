"""How the stock Wan pipeline reads a prompt: cleaned, cut into tokens, and where each token came from."""

from __future__ import annotations

import difflib
from typing import Any

from diffusers.pipelines.wan.pipeline_wan import prompt_clean

from pipeline_lib.models.prompt_tokens import OwnTokens, own_tokens

TEXT_ROWS = 512  # the stock call's max_sequence_length


def cleaned_tokens(tokenizer: Any, prompt: str) -> OwnTokens:
    """The tokens of the cleaned prompt, with their places in the prompt as given.

    Args:
        tokenizer: a fast one.
        prompt: as a person wrote it.

    Returns:
        Ids and spans, the end-of-text token left out.
    """
    cleaned = prompt_clean(prompt)
    own, origins = own_tokens(tokenizer, cleaned, TEXT_ROWS), _origins(prompt, cleaned)
    return OwnTokens(own.ids, [(origins[start][0], origins[stop - 1][1]) for start, stop in own.spans])


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
