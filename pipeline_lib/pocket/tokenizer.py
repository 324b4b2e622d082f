"""The pocket tokenizer: byte-pair encoding with byte fallback and T5's sentinels."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from pipeline_lib.world.captions import CaptionStyle, caption
from pipeline_lib.world.sampling import sample_scene, scene_generator

SENTINELS = 100
_SPECIALS = ("<pad>", "</s>", "<unk>")
_BYTES = tuple(f"<0x{value:02X}>" for value in range(256))


def finish_caption(text: str, draw: float) -> str:
    """Vary a caption's start and end as people do: capital letter, full stop.

    Args:
        text: a caption in lower case.
        draw: uniform number in [0, 1).

    Returns:
        The caption as it is trained on.
    """
    if draw < 0.25:
        text = text[:1].upper() + text[1:]
    return text + "." if draw % 0.25 < 0.06 else text


def _corpus(seed: int, count: int) -> Iterator[str]:
    for index in range(count):
        rng = scene_generator(seed, index, stream=5)
        style = CaptionStyle(image=index % 4 == 0, full=index % 16 == 1)
        yield finish_caption(caption(sample_scene(seed, index), rng, style), rng.random())


def _metaspace() -> pre_tokenizers.Metaspace:
    return pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")


def _learn_pieces(seed: int, captions: int, size: int) -> tuple[list[str], list[tuple[str, str]]]:
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.NFC()
    learner.pre_tokenizer = pre_tokenizers.Sequence([_metaspace(), pre_tokenizers.Punctuation()])
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False)
    learner.train_from_iterator(_corpus(seed, captions), trainer)
    learnt = json.loads(learner.to_str())["model"]
    pieces = sorted(learnt["vocab"], key=learnt["vocab"].__getitem__)
    return pieces, [(left, right) for left, right in learnt["merges"]]


def build_tokenizer(seed: int = 1, captions: int = 6000, size: int = 560) -> PreTrainedTokenizerFast:
    """Train the tokenizer on captions of the world's grammar.

    Any text survives a round trip: characters that no caption holds become bytes.

    Args:
        seed: seed of the scenes that are described.
        captions: how many captions to learn from.
        size: learnt pieces at most; special, byte and sentinel tokens come on top.

    Returns:
        A fast tokenizer that ends every text with ``</s>`` and pads with ``<pad>``, as T5's does.
    """
    pieces, merges = _learn_pieces(seed, captions, size)
    vocabulary = {token: index for index, token in enumerate([*_SPECIALS, *_BYTES, *pieces])}
    model = models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([_metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=[f"<extra_id_{number}>" for number in range(SENTINELS)],
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
