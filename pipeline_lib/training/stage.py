"""A live stage: an adapter on a base, what it learns, and the loss of one micro-batch.

The loop (:mod:`pipeline_lib.training.loop`) runs a stage and knows no method; a method builds one and
runs no loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline_lib.flow_matching import clean_estimate, interpolate, sigma_quantiles, velocity_target
from pipeline_lib.models.adapter import Adapter
from pipeline_lib.models.base import BaseModel, Conditioning
from pipeline_lib.models.learned_tokens import TokenMode
from pipeline_lib.models.self_conditioning import SelfConditioning
from pipeline_lib.records import StageSpec
from pipeline_lib.seeding import generator
from pipeline_lib.training.batch import Sample, SourceDraw, coefficient_masks
from pipeline_lib.training.data import LatentSet, TextBank
from pipeline_lib.training.text import encode_live, with_learned

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


@dataclass(frozen=True)
class _Batch:
    """Samples stacked: (batch, c, t, h, w) twice, (batch,), their masks, and which rows see an estimate."""

    clean: Tensor
    noise: Tensor
    sigma: Tensor
    mask: Tensor | None
    estimated: Sequence[int]


@dataclass(kw_only=True)
class Stage:
    """Everything that a run of one stage needs.

    Attributes:
        spec: what was planned.
        base: the model; the adapter is attached to it.
        adapter: with the parameters of `learning` trainable.
        learning: kinds of factors that learn; none where words alone do.
        sources: what a step draws from, or those of them whose turn it is; the concept first.
        validation: latents and text of the validation loss.
        validation_held_out: whether they are never drawn from; else they are the concept's own.
        vectors: learned words' vectors, by word; those in `learning_words` learn.
        learning_words: see `vectors`.
        words_at: what the vectors stand in for: rows of the text encoder's output, or input embeddings, for which
            the encoder runs in every step.
        self_conditioning: the projection of the model's own estimate, which learns; None: there is none.
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
    words_at: TokenMode = "encoder_output"
    self_conditioning: SelfConditioning | None = None

    def trainable(self) -> dict[str, nn.Parameter]:
        """All that learns, by a name that is stable across processes."""
        named = {
            f"{path}.{kind}": parameter
            for kind in self.learning
            for path, parameter in self.adapter.factors(kind).items()
        }
        if self.self_conditioning is not None:
            named["self_conditioning"] = self.self_conditioning.weight
        return {**named, **{f"token.{word}": self.vectors[word] for word in self.learning_words}}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """AdamW's groups: factors, and learned words with their own rate and no decay."""
        settings = self.optimizer
        named = self.trainable()
        words = [parameter for name, parameter in named.items() if name.startswith("token.")]
        factors = [parameter for name, parameter in named.items() if not name.startswith("token.")]
        groups = [
            {"params": factors, "initial_lr": settings.learning_rate, "weight_decay": settings.weight_decay},
            {"params": words, "initial_lr": settings.token_learning_rate, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]

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
        at = float(torch.rand((), generator=generator(self.seed, f"{self.spec.name}/turn", step)))
        return [sample for source in self._drawn(at) for sample in source.draw(self.seed, self.spec.name, step)]

    def step_sizes(self) -> list[int]:
        """How many samples a step may have: one number, or one for each of the turns that sources take."""
        return [sum(source.count for source in self._drawn(at)) for at in sorted({one.turn[0] for one in self.sources})]

    def loss(self, samples: Sequence[Sample]) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted squared velocity error of a micro-batch.

        Args:
            samples: drawn by :meth:`draw` for one step, of one latent shape.

        Returns:
            A scalar that sums over micro-batches to the step's loss (concept mean + λ · prior mean), and
            the same split by origin, detached.
        """
        batch = _Batch(
            clean=torch.stack([sample.clean for sample in samples]),
            noise=torch.stack([sample.noise for sample in samples]),
            sigma=torch.stack([sample.sigma for sample in samples]),
            mask=_masks(samples),
            estimated=[index for index, sample in enumerate(samples) if sample.estimated],
        )
        errors = self._errors(batch, self._conditioning(samples))
        weights = torch.tensor([sample.weight for sample in samples], device=errors.device)
        weighted = errors * weights
        parts: dict[str, Tensor] = {}
        for source in self.sources:
            mine = torch.tensor([sample.source is source for sample in samples], device=errors.device)
            name, part = f"{source.origin}_loss", (weighted * mine).sum().detach() / source.weight
            parts[name] = parts[name] + part if name in parts else part
        return weighted.sum(), parts

    @torch.no_grad()
    def validate(self) -> float:
        """Mean squared velocity error at fixed sigma quantiles under fixed noise, masked but without dropout.

        With self-conditioning every estimate is seen, as in sampling.
        """
        latents, text = self.validation
        sigmas = sigma_quantiles(VALIDATION_QUANTILES, self.base.spec.sigma_shift)
        total = torch.zeros(())
        with self.adapter.evaluating():
            for index in range(len(latents)):
                clean = latents.latents[index : index + 1]
                row = text.row(int(latents.prompt[index]))
                mask = None if latents.mask is None else latents.mask[index : index + 1]
                noise = torch.randn(len(sigmas), *clean.shape[1:], generator=generator(self.seed, "validation", index))
                for part in torch.arange(len(sigmas)).split(self.micro_batch):
                    conditioning = self._text(text, [row] * len(part), [()] * len(part), self.vectors)
                    same = clean.expand(len(part), -1, -1, -1, -1)
                    batch = _Batch(same, noise[part], sigmas[part], mask, range(len(part)))
                    total += self._errors(batch, conditioning).sum().cpu()
        return float(total) / (len(latents) * len(sigmas))

    def _drawn(self, at: float) -> list[SourceDraw]:
        return [source for source in self.sources if source.has_turn(at)]

    def _errors(self, batch: _Batch, conditioning: Conditioning) -> Tensor:
        device = self.base.device
        clean, noise, sigma = batch.clean.to(device), batch.noise.to(device), batch.sigma.to(device)
        noisy = interpolate(clean, noise, sigma)
        # Sigmas and text go as they are: on the host a base can look at them without waiting for the device.
        with self._seeing_estimates(noisy, batch.sigma, conditioning, batch.estimated):
            velocity = self.base.velocity(noisy, batch.sigma, conditioning)
        return mean_error((velocity.float() - velocity_target(clean, noise)).square(), batch.mask)

    @contextmanager
    def _seeing_estimates(
        self, noisy: Tensor, sigma: Tensor, conditioning: Conditioning, rows: Sequence[int]
    ) -> Iterator[None]:
        """The model sees, for those rows, what it makes of them unseen: no gradient, the same dropout masks."""
        if self.self_conditioning is None or not rows:
            yield
            return
        chosen = torch.tensor(rows)
        estimate = torch.zeros_like(noisy)
        with torch.no_grad():
            velocity = self.base.velocity(noisy[chosen], sigma[chosen], conditioning.take(chosen))
            estimate[chosen] = clean_estimate(noisy[chosen], velocity, sigma[chosen].to(noisy.device))
        with self.self_conditioning.given(estimate):
            yield

    def _text(
        self, bank: TextBank, rows: Sequence[int], hidden: Sequence[tuple[int, ...]], vectors: Mapping[str, Tensor]
    ) -> Conditioning:
        if vectors and self.words_at == "encoder_input":
            return encode_live(self.base, bank, rows, hidden, vectors)
        conditioning = with_learned(self.base, bank, rows, vectors)
        if not any(hidden):
            return conditioning
        return self.base.replace_rows(conditioning, hidden, torch.zeros(conditioning.width))

    def _conditioning(self, samples: Sequence[Sample]) -> Conditioning:
        parts = []
        for source in self.sources:
            mine = [sample for sample in samples if sample.source is source]
            if mine:
                vectors = self.vectors if source.origin == "concept" else {}
                rows, hidden = [sample.row for sample in mine], [sample.hidden for sample in mine]
                parts.append(self._text(source.text, rows, hidden, vectors))
        return parts[0] if len(parts) == 1 else Conditioning.cat(parts)


def mean_error(squared: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of each sample's squared error, over its mask where there is one (Magic-Me's masked loss).

    Args:
        squared: (batch, c, t, h, w).
        mask: weights (batch or 1, 1, t, h, w) in [0, 1], none of them zero everywhere; None: all count alike.

    Returns:
        `sum(mask · squared) / (c · sum(mask))` of each sample, (batch,); with a mask of ones the plain mean.
    """
    if mask is None:
        return squared.flatten(1).mean(1)
    mask = mask.to(squared)
    return (squared * mask).flatten(1).sum(1) / (squared.shape[1] * mask.flatten(1).sum(1))


def _masks(samples: Sequence[Sample]) -> Tensor | None:
    """Their masks, ones where a sample has none; None where none has one."""
    if all(sample.mask is None for sample in samples):
        return None
    return torch.stack(
        [torch.ones_like(sample.clean[:1]) if sample.mask is None else sample.mask for sample in samples]
    )


def learned_vectors(words: Sequence[str], width: int, start: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
    """Learned words' vectors: those of an earlier stage, or zero."""
    return {word: nn.Parameter(start[word].clone() if word in start else torch.zeros(width)) for word in words}
