"""Recipe of the pocket segmenter: a tiny ``CLIPSegForImageSegmentation`` on top of the pocket CLIP."""

from __future__ import annotations

import functools
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    PreTrainedTokenizerFast,
    ViTImageProcessor,
)

from pipeline_lib.pocket.clip_encoder import TEXT_LENGTH, pixels_of
from pipeline_lib.pocket.pieces import Average, Piece, learning_rate_factor
from pipeline_lib.pocket.publishing import replace_folder
from pipeline_lib.pocket.rates import MATRIX, PacedOptimizers
from pipeline_lib.pocket.segmenter_data import QuerySource
from pipeline_lib.pocket.tokenizer import build_tokenizer
from pipeline_lib.pocket.world_settings import SIZE, TRAINING_SEED
from pipeline_lib.storage.tensors import save_tensors

_MEAN, _STD = 0.45, 0.27
_WARMUP = 30


@dataclass(frozen=True, kw_only=True)
class SegmenterSettings:
    """How the segmenter is trained.

    Attributes:
        steps: optimizer steps in all.
        batch: frames with a query per step.
        matrix_rate: peak learning rate of matrices (Muon, scaled to AdamW's size).
        kernel_rate: peak learning rate of convolution kernels (AdamW).
        other_rate: peak learning rate of everything else (AdamW).
        average: decay of the weights' moving average.
    """

    steps: int = 6000
    batch: int = 48
    matrix_rate: float = 1e-3
    kernel_rate: float = 2e-4
    other_rate: float = 5e-4
    average: float = 0.99

    def rates(self) -> dict[str, float]:
        """Peak learning rate by :func:`kind_of` parameter."""
        return {MATRIX: self.matrix_rate, "kernel": self.kernel_rate, "other": self.other_rate}


def build_segmenter(vocabulary: int) -> CLIPSegForImageSegmentation:
    """A fresh pocket segmenter: the pocket CLIP's towers and a decoder of three blocks, 64×64 in and out.

    Args:
        vocabulary: tokens of the pocket tokenizer.

    Returns:
        The model.
    """
    shared = {"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 4, "hidden_act": "gelu"}
    text = {
        "vocab_size": vocabulary,
        "max_position_embeddings": TEXT_LENGTH,
        "num_hidden_layers": 3,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 1,
        **shared,
    }
    vision = {"image_size": SIZE, "patch_size": 8, "num_hidden_layers": 4, **shared}
    config = CLIPSegConfig(
        text_config=text,
        vision_config=vision,
        projection_dim=128,
        extract_layers=[0, 1, 3],
        reduce_dim=96,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=256,
    )
    model = CLIPSegForImageSegmentation(config)
    _calm(model.decoder)
    return model


def _calm(decoder: nn.Module) -> None:
    """Start with small logits, mostly empty: the class draws these weights with unit variance, logits of ±10."""
    with torch.no_grad():
        for name, value in decoder.named_parameters():
            if name.startswith("film") and value.ndim == 2:
                value.mul_(0.03)
            elif name.startswith("reduces") and value.ndim == 2:
                value.mul_(value.shape[1] ** -0.5)
            elif name == "transposed_convolution.weight":
                value.mul_(0.05)
        decoder.get_parameter("film_mul.bias").fill_(1.0)
        decoder.get_parameter("transposed_convolution.bias").fill_(-1.5)


def start_from_clip(model: CLIPSegForImageSegmentation, clip: Path) -> None:
    """Take the towers of the published pocket CLIP, as CLIPSeg takes CLIP's.

    Args:
        model: a fresh segmenter.
        clip: the CLIP's folder; where there is none the model stays as it is.
    """
    file = clip / "model.safetensors"
    if not file.exists():
        return
    own = model.clip.state_dict()
    values = {name: value.float() for name, value in load_file(file).items()}
    fitting = {name: value for name, value in values.items() if name in own and own[name].shape == value.shape}
    model.clip.load_state_dict(fitting, strict=False)


@functools.cache
def segmenter_tokenizer() -> PreTrainedTokenizerFast:
    """The pocket tokenizer, made once: it takes seconds."""
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = TEXT_LENGTH
    return tokenizer


def build_processor() -> CLIPSegProcessor:
    """Image processor for 64×64 frames and the pocket tokenizer, as one processor."""
    image_processor = ViTImageProcessor(
        size={"height": SIZE, "width": SIZE}, image_mean=[_MEAN] * 3, image_std=[_STD] * 3
    )
    return CLIPSegProcessor(image_processor=image_processor, tokenizer=segmenter_tokenizer())


def attend_explicitly(model: CLIPSegForImageSegmentation) -> None:
    """Write attention out, as :mod:`pipeline_lib.pocket.explicit_attention` does and for its reason.

    Args:
        model: the segmenter; the blocks of its decoder have a config of their own.
    """
    model.set_attn_implementation("eager")
    for block in model.decoder.layers:
        block.self_attn.config._attn_implementation = "eager"


def mask_logits(model: CLIPSegForImageSegmentation, pixels: Tensor, tokens: Tensor, attention: Tensor) -> Tensor:
    """The model's own forward, with gradient through its towers, which the class keeps frozen.

    Args:
        model: the segmenter.
        pixels: shape (B, 3, 64, 64).
        tokens: shape (B, L).
        attention: 1 for tokens, 0 for padding, shape (B, L).

    Returns:
        Logits, shape (B, 64, 64).
    """
    seen = model.clip.vision_model(pixel_values=pixels, output_hidden_states=True)
    asked = model.clip.get_text_features(tokens, attention_mask=attention).pooler_output
    activations = [seen.hidden_states[layer + 1] for layer in model.extract_layers]
    logits: Tensor = model.decoder(activations, asked).logits
    return logits


def mask_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy per pixel, and a soft overlap loss of the masks that are not empty.

    Args:
        logits: shape (B, H, W).
        masks: 0 or 1, shape (B, H, W).

    Returns:
        One number.
    """
    shares = torch.sigmoid(logits)
    both, either = (shares * masks).sum((1, 2)), (shares + masks - shares * masks).sum((1, 2))
    named = (masks.sum((1, 2)) > 0).float()
    overlap = ((1 - (both + 1) / (either + 1)) * named).sum() / named.sum().clamp(min=1)
    return 2.0 * functional.binary_cross_entropy_with_logits(logits, masks) + 0.5 * overlap


def kind_of(name: str, value: Tensor) -> str:
    """Which rate a parameter has, by its name: see :class:`SegmenterSettings`."""
    if value.ndim == 2 and "embedding" not in name:
        return MATRIX
    return "kernel" if value.ndim == 4 else "other"


class SegmenterTrainer:
    """A training that stops and goes on with the same bits.

    Args:
        piece: checkpoints and deadline.
        source: frames, words, masks.
        settings: the recipe.
        clip: folder of the pocket CLIP to start from.
    """

    def __init__(self, piece: Piece, source: QuerySource, settings: SegmenterSettings, clip: Path) -> None:
        torch.manual_seed(TRAINING_SEED)
        self.piece, self.source, self.settings = piece, source, settings
        self.tokenizer = segmenter_tokenizer()
        self.model = build_segmenter(len(self.tokenizer))
        attend_explicitly(self.model)
        start_from_clip(self.model, clip)
        self.optimizers = PacedOptimizers(self.model.named_parameters(), kind_of, settings.rates())
        self.average, self.step = Average(self.model, settings.average), 0
        state = piece.load()
        if state:
            self.model.load_state_dict(state["model"])
            self.optimizers.load_state(state["optimizers"])
            self.average.load_state(state["average"])
            self.step = int(state["step"])

    def advance(self) -> float:
        """Take one step; returns the loss."""
        frames, texts, masks = self.source.batch(self.step, self.settings.batch)
        words = self.tokenizer(texts, padding=True, truncation=True, max_length=TEXT_LENGTH, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16):
            logits = mask_logits(self.model, pixels_of(frames), words.input_ids, words.attention_mask)
        loss = mask_loss(logits.float(), torch.from_numpy(masks))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizers.step(learning_rate_factor(self.step, self.settings.steps, warmup=_WARMUP))
        self.average.update(self.model)
        self.step += 1
        return loss.item()

    def save(self) -> None:
        """Write a checkpoint."""
        self.piece.save(
            {
                "model": self.model.state_dict(),
                "optimizers": self.optimizers.state(),
                "average": self.average.state(),
                "step": self.step,
            }
        )


def publish(values: dict[str, Tensor], target: Path) -> None:
    """Write model and processor as one folder, in half precision.

    Args:
        values: averaged parameters.
        target: the folder.
    """
    model = build_segmenter(len(segmenter_tokenizer()))
    model.load_state_dict(values, strict=False)
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(temporary)
    halves = {name: value.half() for name, value in model.state_dict().items() if not name.endswith("position_ids")}
    save_tensors(temporary / "model.safetensors", halves, {"format": "pt"})
    build_processor().save_pretrained(temporary)
    replace_folder(temporary, target)


def train(trainer: SegmenterTrainer, target: Path) -> int:
    """Train one piece and publish.

    Args:
        trainer: where it stands.
        target: the folder to write.

    Returns:
        Steps done.
    """
    piece, settings = trainer.piece, trainer.settings
    losses: list[float] = []
    while trainer.step < settings.steps and not piece.over:
        losses.append(trainer.advance())
        if trainer.step % 50 == 0:
            piece.log({"step": trainer.step, "loss": float(np.mean(losses[-50:]))})
        if piece.due:
            trainer.save()
    trainer.save()
    publish(trainer.average.values, target)
    return trainer.step
