"""A tiny random HunyuanVideo folder of the real classes: what tests and checks load instead of a checkpoint.

Llama's tokenizer in small: its pre-tokenizer, special tokens and byte alphabet, with the prompt template's words whole,
so that the template has the 95 tokens before the prompt that the stock pipeline cuts off.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipeline_lib.models.folder import BaseCard
from pipeline_lib.models.tiny import NUM_SENTINELS

if TYPE_CHECKING:
    from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoPipeline, HunyuanVideoTransformer3DModel
    from transformers import CLIPTextModel, CLIPTokenizer, LlamaModel, PreTrainedTokenizerFast

TEXT_WIDTH, POOLED_WIDTH = 24, 16
_PADDING = "<pad>"
_SPECIALS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", _PADDING)
_WORDS = " a the dog creature cat red hat on beach in snow running of video photo street"
# Of Llama 3 (the published tokenizer.json): contractions, words with one leading sign, numbers of up to three digits,
# signs, line ends, spaces.
_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tiny_hunyuan(folder: Path, seed: int = 0) -> Path:
    """Saves a tiny random HunyuanVideo text-to-video folder, 32×32 pixels, 5 frames, 8 frames per second.

    Args:
        folder: where to save; made when missing.
        seed: of the random weights; the same seed gives the same weights.

    Returns:
        The folder.
    """
    _tiny_pipeline(seed).save_pretrained(folder)
    card = BaseCard(
        height=32,
        width=32,
        num_frames=5,
        frames_per_second=8.0,
        sigma_shift=7.0,
        guidance_scale=6.0,
        sampling_steps=3,
        licence="CC0-1.0",
    )
    card.save(folder)
    return folder


def _tiny_pipeline(seed: int) -> HunyuanVideoPipeline:
    from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoPipeline

    tokenizer, tokenizer_2 = _llama_tokenizer(), _clip_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return HunyuanVideoPipeline(
            text_encoder=_llama(tokenizer),
            tokenizer=tokenizer,
            transformer=_transformer(),
            vae=_autoencoder(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
            text_encoder_2=_clip(tokenizer_2),
            tokenizer_2=tokenizer_2,
        )


def _llama_tokenizer() -> PreTrainedTokenizerFast:
    from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    pieces = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    texts = [*re.split(r"<\|\w+\|>|\{\}", DEFAULT_PROMPT_TEMPLATE["template"]), _WORDS, _WORDS.replace(" ", "\n")]
    words = {piece for text in texts for piece, _ in pieces.pre_tokenize_str(text)}
    reserved = [f"<|reserved_special_token_{index}|>" for index in range(NUM_SENTINELS)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = dict.fromkeys([*_SPECIALS, *reserved, *alphabet, *sorted(words)])
    # Llama 3 looks a whole piece up before it merges; here there is nothing to merge.
    backend = Tokenizer(models.BPE({word: n for n, word in enumerate(vocabulary)}, merges=[], ignore_merges=True))
    backend.pre_tokenizer = pieces
    backend.decoder = decoders.ByteLevel()
    start = _SPECIALS[0]
    backend.post_processor = processors.TemplateProcessing(single=f"{start} $A", special_tokens=[(start, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=start,
        eos_token=_SPECIALS[1],
        pad_token=_PADDING,
        padding_side="right",
        additional_special_tokens=[*_SPECIALS, *reserved],
    )


def _clip_tokenizer() -> CLIPTokenizer:
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(f"{letter}</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: n for n, word in enumerate(words)}, merges=[], model_max_length=77)


def _llama(tokenizer: Any) -> LlamaModel:
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.1,
    )
    return LlamaModel(config).eval()


def _clip(tokenizer: Any) -> CLIPTextModel:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=POOLED_WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config).eval()


def _autoencoder() -> AutoencoderKLHunyuanVideo:
    from diffusers import AutoencoderKLHunyuanVideo

    return AutoencoderKLHunyuanVideo(
        latent_channels=16, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    ).eval()


def _transformer() -> HunyuanVideoTransformer3DModel:
    from diffusers import HunyuanVideoTransformer3DModel

    return HunyuanVideoTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        text_embed_dim=TEXT_WIDTH,
        pooled_projection_dim=POOLED_WIDTH,
        rope_axes_dim=(4, 4, 4),
    ).eval()
