"""A live stage: an adapter on a base, what it learns, and the loss of one micro-batch.

The loop (:mod:`pipeline_lib.training.loop`) runs a stage and knows no method; a method builds one and
runs no loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline_lib.flow_matching import interpolate, sigma_quantiles, velocity_target
from pipeline_lib.models.adapter import Adapter
from pipeline_lib.models.base import BaseModel, Conditioning
from pipeline_lib.records import StageSpec
from pipeline_lib.seeding import generator
from pipeline_lib.training.batch import Sample, SourceDraw, coefficient_masks
from pipeline_lib.training.data import LatentSet, TextBank
from pipeline_lib.training.text import with_learned

VALIDATION_QUANTILES = 8


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW's settings (Set-and-Sequence, Table 6).

    Attributes:
        learning_rate: of the adapter.
        decay: share of the steps, the last ones, over which the rates fall linearly to zero; 0: constant,
            as in the paper.
        token_learning_rate: of learned words, which get no weight decay.
        betas: of AdamW.
        weight_decay: decoupled.
        max_gradient_norm: over all that learns.
    """

    learning_rate: float
    token_learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    max_gradient_norm: float
    decay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class DropoutSettings:
    """Coefficient dropout of one stage; probability 0 draws nothing.

    Attributes:
        probability: that an element of the coefficient matrix is zeroed.
        rescale: inverted scaling.
        factors: which matrices it hits.
    """

    probability: float
    rescale: bool
    factors: tuple[Literal["coefficients", "residual"], ...]


@dataclass(kw_only=True)
class Stage:
    """Everything that a run of one stage needs.

    Attributes:
        spec: what was planned.
        base: the model; the adapter is attached to it.
        adapter: with the parameters of `learning` trainable.
        learning: kinds of factors that learn.
        sources: what a step draws from; the concept first.
        validation: latents and text of the validation loss.
        validation_held_out: whether they are never drawn from; else they are the concept's own.
        vectors: learned words' vectors, by word; those in `learning_words` learn.
        learning_words: see `vectors`.
        optimizer: settings.
        dropout: coefficient dropout.
        micro_batch: largest number of samples in one forward.
        seed: of every draw.
    """

    spec: StageSpec
    base: BaseModel
    adapter: Adapter
    learning: tuple[Literal["basis", "coefficients", "residual"], ...]
    sources: tuple[SourceDraw, ...]
    validation: tuple[LatentSet, TextBank]
    validation_held_out: bool
    optimizer: OptimizerSettings
    dropout: DropoutSettings
    micro_batch: int
    seed: int
    vectors: dict[str, nn.Parameter] = field(default_factory=dict)
    learning_words: tuple[str, ...] = ()

    def trainable(self) -> dict[str, nn.Parameter]:
        """All that learns, by a name that is stable across processes."""
        named = {
            f"{path}.{kind}": parameter
            for kind in self.learning
            for path, parameter in self.adapter.factors(kind).items()
        }
        return {**named, **{f"token.{word}": self.vectors[word] for word in self.learning_words}}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """AdamW's groups: factors, and learned words with their own rate and no decay."""
        settings = self.optimizer
        named = self.trainable()
        words = [parameter for name, parameter in named.items() if name.startswith("token.")]
        factors = [parameter for name, parameter in named.items() if not name.startswith("token.")]
        groups = [{"params": factors, "initial_lr": settings.learning_rate, "weight_decay": settings.weight_decay}]
        if words:
            groups.append({"params": words, "initial_lr": settings.token_learning_rate, "weight_decay": 0.0})
        return groups

    def rate_factor(self, step: int) -> float:
        """What the learning rates are multiplied by at a step, which counts from 0; in (0, 1]."""
        falling = self.optimizer.decay * self.spec.steps
        return min(1.0, (self.spec.steps - step) / falling) if falling else 1.0

    def draw(self, step: int) -> list[Sample]:
        """Draws a step's samples, and its dropout masks, which stay in force until the next draw."""
        if self.dropout.probability > 0:
            for kind in self.dropout.factors:
                shapes = {path: factor.shape for path, factor in self.adapter.factors(kind).items()}
                draw = generator(self.seed, f"{self.spec.name}/dropout-{kind}", step)
                masks = coefficient_masks(shapes, 1 - self.dropout.probability, self.dropout.rescale, draw)
                device = self.base.device
                self.adapter.set_masks(kind, {path: mask.to(device) for path, mask in masks.items()})
        return [sample for source in self.sources for sample in source.draw(self.seed, self.spec.name, step)]

    def loss(self, samples: Sequence[Sample]) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted squared velocity error of a micro-batch.

        Args:
            samples: drawn by :meth:`draw`, of one latent shape.

        Returns:
            A scalar that sums over micro-batches to the step's loss (concept mean + λ · prior mean), and
            the same split by origin, detached.
        """
        errors = self._errors(
            torch.stack([sample.clean for sample in samples]),
            torch.stack([sample.noise for sample in samples]),
            torch.stack([sample.sigma for sample in samples]),
            self._conditioning(samples),
        )
        weights = torch.tensor([sample.weight for sample in samples], device=errors.device)
        weighted = errors * weights
        parts = {}
        for source in self.sources:
            mine = torch.tensor([sample.origin == source.origin for sample in samples], device=errors.device)
            parts[f"{source.origin}_loss"] = (weighted * mine).sum().detach() / source.weight
        return weighted.sum(), parts

    @torch.no_grad()
    def validate(self) -> float:
        """Mean squared velocity error at fixed sigma quantiles under fixed noise, without dropout."""
        latents, text = self.validation
        sigmas = sigma_quantiles(VALIDATION_QUANTILES, self.base.spec.sigma_shift)
        total = torch.zeros(())
        with self.adapter.evaluating():
            for index in range(len(latents)):
                clean = latents.latents[index : index + 1]
                row = text.row(int(latents.prompt[index]))
                noise = torch.randn(len(sigmas), *clean.shape[1:], generator=generator(self.seed, "validation", index))
                for part in torch.arange(len(sigmas)).split(self.micro_batch):
                    conditioning = with_learned(self.base, text, [row] * len(part), self.vectors)
                    same = clean.expand(len(part), -1, -1, -1, -1)
                    total += self._errors(same, noise[part], sigmas[part], conditioning).sum().cpu()
        return float(total) / (len(latents) * len(sigmas))

    def _errors(self, clean: Tensor, noise: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        device = self.base.device
        clean, noise, sigma = clean.to(device), noise.to(device), sigma.to(device)
        noisy = interpolate(clean, noise, sigma)
        velocity = self.base.velocity(noisy, sigma, conditioning.to(device))
        return (velocity.float() - velocity_target(clean, noise)).square().flatten(1).mean(1)

    def _conditioning(self, samples: Sequence[Sample]) -> Conditioning:
        parts = []
        for source in self.sources:
            mine = [sample for sample in samples if sample.origin == source.origin]
            if mine:
                vectors = self.vectors if source.origin == "concept" else {}
                part = with_learned(self.base, source.text, [sample.row for sample in mine], vectors)
                parts.append(self._padded_out(part, mine))
        return parts[0] if len(parts) == 1 else Conditioning.cat(parts)

    def _padded_out(self, conditioning: Conditioning, samples: Sequence[Sample]) -> Conditioning:
        if not any(sample.hidden for sample in samples):
            return conditioning
        width = conditioning.width
        return self.base.replace_rows(conditioning, [sample.hidden for sample in samples], torch.zeros(width))


def learned_vectors(words: Sequence[str], width: int, start: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
    """Learned words' vectors: those of an earlier stage, or zero."""
    return {word: nn.Parameter(start[word].clone() if word in start else torch.zeros(width)) for word in words}
