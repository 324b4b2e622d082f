"""Recipe of the pocket captioner: a tiny ``Qwen2VLForConditionalGeneration`` taught canonical answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from pipeline_lib.pocket import captioner_language as language
from pipeline_lib.pocket.captioner_data import Lesson, LessonSource
from pipeline_lib.pocket.captioner_hints import HintHeads
from pipeline_lib.pocket.captioner_model import (
    CLIP_GROUPS,
    GRID,
    TOKENS,
    build_captioner,
    patches_of,
    publish,
    start_from_clip,
    vision_features,
)
from pipeline_lib.pocket.pieces import Average, Piece, learning_rate_factor
from pipeline_lib.pocket.rates import MATRIX, PacedOptimizers
from pipeline_lib.pocket.world_settings import CLIP_FRAMES, TRAINING_SEED

_SCAFFOLD_WEIGHT = 0.1


@dataclass(frozen=True, kw_only=True)
class CaptionerSettings:
    """How the captioner is trained.

    Attributes:
        steps: optimizer steps in all.
        batch: lessons per step.
        matrix_rate: peak learning rate of matrices (Muon, scaled to AdamW's size).
        kernel_rate: peak learning rate of patches' kernel and of the merging matrices (AdamW).
        other_rate: peak learning rate of everything else (AdamW).
        head_rate: peak learning rate of the heads that answer the hints (AdamW).
        average: decay of the weights' moving average.
        hints: weight of the questions that vision tokens answer themselves.
    """

    steps: int = 4000
    batch: int = 24
    matrix_rate: float = 2e-3
    kernel_rate: float = 4e-4
    other_rate: float = 1.5e-3
    head_rate: float = 5e-3
    average: float = 0.99
    hints: float = 1.0

    def rates(self) -> dict[str, float]:
        """Peak learning rate by :func:`kind_of` parameter."""
        return {MATRIX: self.matrix_rate, "kernel": self.kernel_rate, "other": self.other_rate, "head": self.head_rate}


@dataclass(frozen=True)
class LessonBatch:
    """A batch as the model takes it.

    Attributes:
        patches: of :func:`patches_of`.
        groups: pairs of frames of each clip; 1 for pictures.
        grid: (groups, rows, columns) of patches of each clip or picture, shape (M, 3).
        tokens: question and answer, shape (B, L).
        kinds: 1 for places of pictures, 2 of videos, 0 for text, shape (B, L).
        attention: 1 for tokens, 0 for padding, shape (B, L).
        weights: of each token as a target; 0 for question and padding, shape (B, L).
    """

    patches: Tensor
    groups: int
    grid: Tensor
    tokens: Tensor
    kinds: Tensor
    attention: Tensor
    weights: Tensor


def batch_of(lessons: list[Lesson], tokenizer: PreTrainedTokenizerFast) -> LessonBatch:
    """Put lessons of equal length together.

    Args:
        lessons: all clips, or all sets of equally many pictures.
        tokenizer: the captioner's.

    Returns:
        The batch.
    """
    count = lessons[0].frames.shape[0]
    moving = count == CLIP_FRAMES
    frames = torch.from_numpy(np.stack([lesson.frames for lesson in lessons]))
    shown = frames if moving else frames.flatten(0, 1)[:, None]
    place = tokenizer.convert_tokens_to_ids(language.VIDEO if moving else language.IMAGE)
    start, stop, ask = tokenizer.convert_tokens_to_ids([language.VISION_START, language.VISION_END, language.ANSWER])
    groups = CLIP_GROUPS if moving else 1
    media = [start, *[place] * (groups * TOKENS), stop] * (1 if moving else count)
    plain = set(tokenizer.convert_tokens_to_ids(list(language.scaffold())))
    rows, weights = [], []
    questions = tokenizer([language.question(lesson.noun, moving) for lesson in lessons]).input_ids
    answers = tokenizer([lesson.answer for lesson in lessons]).input_ids
    for question, answer in zip(questions, answers, strict=True):
        asked, said = [*media, *question, ask], [*answer, tokenizer.eos_token_id]
        rows.append(torch.tensor(asked + said))
        weights.append(torch.tensor([0.0] * len(asked) + [_SCAFFOLD_WEIGHT if one in plain else 1.0 for one in said]))
    pad = tokenizer.pad_token_id
    tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    return LessonBatch(
        patches=patches_of(shown),
        groups=groups,
        grid=torch.tensor([[groups, GRID, GRID]]).repeat(len(shown), 1),
        tokens=tokens,
        kinds=(tokens == place).long() * (2 if moving else 1),
        attention=(tokens != pad).long(),
        weights=nn.utils.rnn.pad_sequence(weights, batch_first=True),
    )


def answer_loss(model: Qwen2VLForConditionalGeneration, batch: LessonBatch, features: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the answers' tokens, those that are always the same weighing a tenth.

    Args:
        model: the captioner.
        batch: lessons.
        features: of :func:`vision_features`.

    Returns:
        The loss; whether each content token was the likeliest, shape (number of content tokens,).
    """
    moving = bool((batch.kinds == 2).any())
    kind = "video" if moving else "image"
    seen = BaseModelOutputWithPooling(pooler_output=tuple(features))
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(
            input_ids=batch.tokens,
            attention_mask=batch.attention,
            mm_token_type_ids=batch.kinds,
            use_cache=False,
            mm_encoder_outputs={kind: seen},
            **{f"{kind}_grid_thw": batch.grid},
        ).last_hidden_state
        weights = batch.weights[:, 1:]
        logits = model.lm_head(hidden[:, :-1][weights > 0]).float()
    target, weight = batch.tokens[:, 1:][weights > 0], weights[weights > 0]
    loss = (functional.cross_entropy(logits, target, reduction="none") * weight).sum() / weight.sum()
    return loss, (logits.argmax(-1) == target)[weight == 1.0]


def kind_of(name: str, value: Tensor) -> str:
    """Which rate a parameter of the captioner or of its heads has, by its name: see :class:`CaptionerSettings`."""
    if name.startswith(("subject.", "scene.", "place.")):
        return "head"
    if value.ndim == 2 and (".layers." in name or ".blocks." in name):
        return MATRIX
    return "kernel" if "patch_embed" in name or ("merger" in name and value.ndim == 2) else "other"


class CaptionerTrainer:
    """A training that stops and goes on with the same bits.

    Args:
        piece: checkpoints and deadline.
        source: lessons.
        settings: the recipe.
        clip: folder of the pocket CLIP whose tower to start from.
    """

    def __init__(self, piece: Piece, source: LessonSource, settings: CaptionerSettings, clip: Path) -> None:
        torch.manual_seed(TRAINING_SEED)
        self.piece, self.source, self.settings = piece, source, settings
        self.tokenizer = language.build_tokenizer()
        self.model = build_captioner(self.tokenizer).train()
        self.model.set_attn_implementation("eager")  # see vision_features
        start_from_clip(self.model, clip)
        self.heads = HintHeads(self.model.config.text_config.hidden_size)
        named = [*self.model.named_parameters(), *self.heads.named_parameters()]
        self.optimizers = PacedOptimizers(named, kind_of, settings.rates())
        self.average, self.step = Average(self.model, settings.average), 0
        state = piece.load()
        if state:
            self.model.load_state_dict(state["model"])
            self.heads.load_state_dict(state["heads"])
            self.optimizers.load_state(state["optimizers"])
            self.average.load_state(state["average"])
            self.step = int(state["step"])

    def advance(self) -> tuple[float, float]:
        """Take one step; returns the loss, and the share of content tokens that were the likeliest."""
        lessons = self.source.batch(self.step, self.settings.batch)
        batch = batch_of(lessons, self.tokenizer)
        with torch.autocast("cpu", torch.bfloat16):
            features = vision_features(self.model, batch.patches, batch.groups)
        loss, right = answer_loss(self.model, batch, features)
        clips = bool((batch.kinds == 2).any())
        total = loss + self.settings.hints * self.heads.loss(features, lessons) if clips else loss
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizers.step(learning_rate_factor(self.step, self.settings.steps))
        self.average.update(self.model)
        self.step += 1
        return loss.item(), right.float().mean().item()

    def save(self) -> None:
        """Write a checkpoint."""
        self.piece.save(
            {
                "model": self.model.state_dict(),
                "heads": self.heads.state_dict(),
                "optimizers": self.optimizers.state(),
                "average": self.average.state(),
                "step": self.step,
            }
        )


def train(trainer: CaptionerTrainer, target: Path) -> int:
    """Train one piece and publish.

    Args:
        trainer: where it stands.
        target: the folder to write.

    Returns:
        Steps done.
    """
    piece, settings = trainer.piece, trainer.settings
    seen: list[tuple[float, float]] = []
    while trainer.step < settings.steps and not piece.over:
        seen.append(trainer.advance())
        if trainer.step % 50 == 0:
            loss, right = np.mean(seen[-50:], axis=0).tolist()
            piece.log({"step": trainer.step, "loss": loss, "right": right})
        if piece.due:
            trainer.save()
    trainer.save()
    publish(trainer.average.values, target)
    return trainer.step
