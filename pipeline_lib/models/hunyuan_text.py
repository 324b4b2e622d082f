"""How the stock HunyuanVideo pipeline reads a prompt: inside a chat template that is cut off again, by Llama and CLIP.

diffusers: `pipelines/hunyuan_video/pipeline_hunyuan_video.py`, `_get_llama_prompt_embeds`, `_get_clip_prompt_embeds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from pipeline_lib.errors import InputError
from pipeline_lib.models.folder import PipelineFolder
from pipeline_lib.models.prompt_tokens import OwnTokens, without_leading_spaces

TEXT_ROWS = 256  # the stock call's max_sequence_length: rows that are left after the cut
CLIP_ROWS = 77
TEMPLATE: str = DEFAULT_PROMPT_TEMPLATE["template"]
CROP: int = DEFAULT_PROMPT_TEMPLATE["crop_start"]
_BEFORE = TEMPLATE.index("{}")


def llama_tokenizer(folder: PipelineFolder) -> Any:
    """The tokenizer as its own `tokenizer.json` has it, whatever class the index names.

    The published folder names `LlamaTokenizerFast`, which in transformers 5 puts Llama 2's pre-tokenizer in the place
    of the file's: spaces are lost, and the template has 365 tokens for 95 (transformers issue 45488).

    Args:
        folder: the base's.

    Returns:
        A fast tokenizer that pads on the right.

    Raises:
        InputError: it cannot be read, pads on the left, or the template's cut would not fall on the prompt's start.
    """
    path = folder.path / "tokenizer"
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be loaded", got=str(error), fix="fetch or save the folder again") from error
    offsets = tokenizer(TEMPLATE.format(""), return_offsets_mapping=True)["offset_mapping"]
    before = sum(stop <= _BEFORE for _, stop in offsets)
    if before != CROP:
        raise InputError(
            f"{path} is not the tokenizer that HunyuanVideo's prompt template was cut for",
            got=f"{before} tokens before the prompt",
            expected=str(CROP),
        )
    if tokenizer.padding_side != "right":
        raise InputError(f"{path} pads on the left, where the template is cut off", expected="padding_side right")
    return tokenizer


def own_tokens(tokenizer: Any, prompt: str) -> OwnTokens:
    """Tokens that stand for the user's prompt, in the order of the text's rows.

    Args:
        tokenizer: of :func:`llama_tokenizer`.
        prompt: as a person wrote it; the stock pipeline does not clean it.

    Returns:
        Ids and spans, as many as the cut leaves.
    """
    encoding = tokenizer(
        TEMPLATE.format(prompt), return_offsets_mapping=True, truncation=True, max_length=CROP + TEXT_ROWS
    )
    ids, spans = [], []
    for token, (first, last) in zip(encoding["input_ids"][CROP:], encoding["offset_mapping"][CROP:], strict=True):
        start, stop = first - _BEFORE, last - _BEFORE
        if stop > len(prompt):
            break  # the template goes on
        ids.append(token)
        spans.append(without_leading_spaces(prompt, start, stop))
    return OwnTokens(ids, spans)


def padded_ids(tokenizer: Any, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Ids and mask of the prompts in the template, as the stock pipeline gives them to Llama.

    Args:
        tokenizer: of :func:`llama_tokenizer`.
        prompts: as given.

    Returns:
        Both (batch, :data:`CROP` + :data:`TEXT_ROWS`).
    """
    tokens = tokenizer(
        [TEMPLATE.format(prompt) for prompt in prompts],
        max_length=CROP + TEXT_ROWS,
        padding="max_length",
        truncation=True,
        return_tensors="pt",
    )
    return tokens.input_ids, tokens.attention_mask


def clip_ids(tokenizer: Any, prompts: Sequence[str]) -> Tensor:
    """Ids of the bare prompts, as the stock pipeline gives them to CLIP.

    Args:
        tokenizer: CLIP's.
        prompts: as given, or with hidden words cut out.

    Returns:
        (batch, :data:`CLIP_ROWS`).
    """
    ids: Tensor = tokenizer(
        list(prompts), padding="max_length", max_length=CLIP_ROWS, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


def without_spans(prompt: str, spans: Sequence[tuple[int, int]]) -> str:
    """A prompt with those characters cut out."""
    kept = torch.ones(len(prompt), dtype=torch.bool)
    for start, stop in spans:
        kept[start:stop] = False
    return "".join(letter for letter, keep in zip(prompt, kept.tolist(), strict=True) if keep)
