"""Recipe of the pocket image–text encoder: a tiny ``CLIPModel`` trained contrastively."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    PreTrainedTokenizerFast,
)

from pipeline_lib.pocket import clip_cache
from pipeline_lib.pocket.pieces import Average, Piece, learning_rate_factor
from pipeline_lib.pocket.publishing import replace_folder
from pipeline_lib.pocket.tokenizer import build_tokenizer, finish_caption
from pipeline_lib.pocket.world_settings import HELD_OUT_SEED, SIZE, TRAINING_SEED
from pipeline_lib.world.captions import CaptionStyle, caption
from pipeline_lib.world.sampling import scene_generator

TEXT_LENGTH = 64
GROUP = 64
"""Captions among which a frame's own is looked for."""
_MEAN, _STD = 0.45, 0.27


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """How the image–text encoder is trained.

    Attributes:
        steps: optimizer steps in all.
        batch: pairs per step.
        peak_rate: peak learning rate.
        average: decay of the weights' moving average.
    """

    steps: int = 820
    batch: int = 112
    peak_rate: float = 1e-3
    average: float = 0.99


def build_clip(tokenizer: PreTrainedTokenizerFast) -> CLIPModel:
    """A fresh pocket CLIP: 64 image patches of 8×8 pixels, 64 text tokens, 128 shared numbers.

    Args:
        tokenizer: the pocket tokenizer.

    Returns:
        The model.
    """
    shared = {"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 4, "hidden_act": "gelu"}
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": TEXT_LENGTH,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "num_hidden_layers": 3,
        **shared,
    }
    vision = {"image_size": SIZE, "patch_size": 8, "num_hidden_layers": 4, **shared}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=128)
    return CLIPModel(config)


def build_processor() -> CLIPProcessor:
    """Image processor for 64×64 frames and the pocket tokenizer, as one processor."""
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = TEXT_LENGTH
    image_processor = CLIPImageProcessor(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=[_MEAN] * 3,
        image_std=[_STD] * 3,
    )
    return CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer)


def pixels_of(frames: np.ndarray[Any, Any]) -> Tensor:
    """What the processor makes of frames that are 64×64 already.

    Args:
        frames: uint8, shape (N, 64, 64, 3).

    Returns:
        Pixel values, shape (N, 3, 64, 64).
    """
    return ((torch.from_numpy(frames).float() / 255.0 - _MEAN) / _STD).permute(0, 3, 1, 2)


class PairSource:
    """Frames with captions from the clip cache.

    Args:
        folder: the clip cache.
        tokenizer: the pocket tokenizer.
    """

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        numbers = clip_cache.shards_present(folder)[:24]
        self.shards = [clip_cache.read_shard(folder, number) for number in numbers]

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pixel values, token ids and token mask of one step.

        Args:
            step: counter of the draw.
            size: pairs.

        Returns:
            Shapes (B, 3, 64, 64), (B, L) and (B, L).
        """
        rng = scene_generator(TRAINING_SEED, step, stream=13)
        frames, captions = [], []
        for _ in range(size):
            shard = self.shards[int(rng.integers(len(self.shards)))]
            clip = int(rng.integers(len(shard.scenes)))
            frames.append(shard.frames[clip, int(rng.integers(shard.frames.shape[1]))])
            style = CaptionStyle(image=True, general_share=0.2, full=rng.random() < 0.2)
            captions.append(finish_caption(caption(shard.scenes[clip], rng, style), rng.random()))
        tokens = self.tokenizer(captions, padding=True, truncation=True, max_length=TEXT_LENGTH, return_tensors="pt")
        return pixels_of(np.stack(frames)), tokens.input_ids, tokens.attention_mask


def contrastive_loss(model: CLIPModel, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Symmetric cross-entropy over the batch."""
    pixels, tokens, mask = batch
    with torch.autocast("cpu", torch.bfloat16):
        output = model(input_ids=tokens, attention_mask=mask, pixel_values=pixels)
    logits = output.logits_per_image.float()
    target = torch.arange(logits.shape[0])
    return 0.5 * (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target))


@torch.no_grad()
def retrieval_accuracy(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, groups: int = 8) -> float:
    """Share of held-out frames whose full caption is found among 64.

    Args:
        model: the encoder.
        tokenizer: its tokenizer.
        groups: how many groups of 64 to search.

    Returns:
        Top-1 accuracy in [0, 1]; 1 can be reached: no two captions of a group are equal.
    """
    shard = clip_cache.render_shard(0, seed=HELD_OUT_SEED, count=GROUP * groups)
    captions = [
        caption(scene, scene_generator(HELD_OUT_SEED, index, 3), CaptionStyle(image=True, full=True))
        for index, scene in enumerate(shard.scenes)
    ]
    hits = 0
    for start in range(0, GROUP * groups, GROUP):
        tokens = tokenizer(
            captions[start : start + GROUP],
            padding=True,
            truncation=True,
            max_length=TEXT_LENGTH,
            return_tensors="pt",
        )
        output = model(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            pixel_values=pixels_of(shard.frames[start : start + GROUP, 6]),
        )
        hits += int((output.logits_per_image.argmax(dim=1) == torch.arange(GROUP)).sum())
    return hits / (GROUP * groups)


def publish(values: dict[str, Tensor], target: Path) -> CLIPModel:
    """Write model and processor as one folder.

    Args:
        values: averaged parameters.
        target: the folder.

    Returns:
        The model, in fp32.
    """
    processor = build_processor()
    model = build_clip(processor.tokenizer)
    model.load_state_dict(values, strict=False)
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    model.half().save_pretrained(temporary, safe_serialization=True)
    processor.save_pretrained(temporary)
    replace_folder(temporary, target)
    return model.float().eval()


class ClipTrainer:
    """Live state of the encoder's training.

    Args:
        piece: checkpoints and deadline.
        source: training pairs.
        settings: the recipe.
        published: without a checkpoint, start from this folder's weights; None starts anew.
    """

    def __init__(self, piece: Piece, source: PairSource, settings: ClipSettings, published: Path | None = None) -> None:
        torch.manual_seed(TRAINING_SEED)
        self.piece, self.source, self.settings = piece, source, settings
        self.model, self.step, state = build_clip(source.tokenizer), 0, piece.load()
        if published is not None:
            stored = CLIPModel.from_pretrained(published, torch_dtype=torch.float32)
            self.model.load_state_dict(stored.state_dict())
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.peak_rate, betas=(0.9, 0.98), weight_decay=0.05, fused=True
        )
        self.average = Average(self.model, settings.average)
        if state:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average.load_state(state["average"])
            self.step = int(state["step"])

    def advance(self) -> float:
        """Take one optimizer step and return its loss."""
        factor = learning_rate_factor(self.step, self.settings.steps)
        self.optimizer.param_groups[0]["lr"] = self.settings.peak_rate * factor
        loss = contrastive_loss(self.model, self.source.batch(self.step, self.settings.batch))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0.0, math.log(100.0))
        self.average.update(self.model)
        self.step += 1
        return loss.item()

    def checkpoint(self) -> None:
        """Write everything that the next piece goes on from."""
        self.piece.save(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average.state(),
                "step": self.step,
            }
        )


def train(trainer: ClipTrainer, target: Path) -> float:
    """Train one piece and publish the averaged weights.

    Args:
        trainer: the live state.
        target: the folder to write.

    Returns:
        Top-1 accuracy of 64.
    """
    piece, steps = trainer.piece, trainer.settings.steps
    while trainer.step < steps and not piece.over:
        loss = trainer.advance()
        if trainer.step % 50 == 0:
            piece.log({"step": trainer.step, "loss": loss})
        if piece.due:
            trainer.checkpoint()
    trainer.checkpoint()
    return retrieval_accuracy(publish(trainer.average.values, target), trainer.source.tokenizer)
