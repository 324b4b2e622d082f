"""The pocket tokenizer: any text survives, sentinels are single tokens, stock classes load it."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipeline_lib.pocket.tokenizer import build_tokenizer, finish_caption


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(captions=400)


@pytest.mark.parametrize(
    "text",
    ["a red circle bouncing on a beach", "sks Creature", "naïve café, 漢字 🙂", "tabs\tand 100% of_it"],
)
def test_any_text_survives_a_round_trip(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    tokens = tokenizer(text).input_ids
    assert tokenizer.unk_token_id not in tokens
    assert tokenizer.decode(tokens, skip_special_tokens=True) == text


def test_texts_end_and_pad_as_t5_does(tokenizer: PreTrainedTokenizerFast) -> None:
    batch = tokenizer(["a red circle", ""], padding="max_length", max_length=12)
    assert batch.input_ids[1] == [tokenizer.eos_token_id] + [tokenizer.pad_token_id] * 11
    assert sum(batch.attention_mask[0]) == batch.input_ids[0].index(tokenizer.eos_token_id) + 1


def test_sentinels_are_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer("<extra_id_0>", add_special_tokens=False).input_ids) == 1
    assert len(set(tokenizer.convert_tokens_to_ids([f"<extra_id_{n}>" for n in range(100)]))) == 100


def test_stock_loader_reads_it(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "A dotted heart, café."
    assert again(text).input_ids == tokenizer(text).input_ids
    assert len(again) == len(tokenizer)


def test_captions_vary_in_start_and_end() -> None:
    assert {finish_caption("a ring", draw / 100) for draw in range(100)} == {"a ring", "A ring", "a ring.", "A ring."}
