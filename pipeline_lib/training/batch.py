"""What one optimizer step trains on: drawn from counters, before the forward, sample by sample.

A sample's draw depends on (seed, stage, step, index) alone. So micro-batches of any size, a resumed run
and a recomputed forward see the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pipeline_lib.flow_matching import logit_normal_sigma
from pipeline_lib.seeding import generator
from pipeline_lib.training.data import LatentSet, TextBank
from pipeline_lib.training.text import draw_hidden

Origin = Literal["concept", "prior"]


@dataclass(frozen=True)
class Sample:
    """One drawn training sample, on the CPU.

    Attributes:
        source: that it was drawn from.
        clean: latents, (c, t, h, w).
        noise: of the same shape.
        sigma: a scalar tensor in (0, 1).
        row: row of its text bank.
        hidden: token positions to hide (where no masked variants were encoded beforehand).
        weight: of its squared error in the step's loss.
        mask: where its error counts, (1, t, h, w) in [0, 1]; None: everywhere.
        estimated: whether the model sees its own estimate (self-conditioning).
    """

    source: SourceDraw
    clean: Tensor
    noise: Tensor
    sigma: Tensor
    row: int
    hidden: tuple[int, ...]
    weight: float
    mask: Tensor | None = None
    estimated: bool = False

    @property
    def origin(self) -> Origin:
        """Whose data it is."""
        return self.source.origin


@dataclass(frozen=True, kw_only=True)
class SourceDraw:
    """How samples are drawn from one source.

    Attributes:
        origin: concept or prior.
        latents: what is drawn from.
        text: its prompts.
        count: samples a step.
        weight: of the source's mean in the loss.
        sigma_shift: of the base's training density.
        drop_probability: of each token, drawn with the sample; 0 where masked variants do it.
        full_mask_share: of samples whose whole picture counts, where there are masks.
        estimate_probability: that the model sees its own estimate; 0 draws nothing.
        turn: part `[low, high)` of [0, 1) that a number drawn once a step must fall into for the source to be drawn
            from; sources whose parts do not overlap take turns, each in its share of the steps.
    """

    origin: Origin
    latents: LatentSet
    text: TextBank
    count: int
    weight: float
    sigma_shift: float
    drop_probability: float = 0.0
    full_mask_share: float = 0.0
    estimate_probability: float = 0.0
    turn: tuple[float, float] = (0.0, 1.0)

    def has_turn(self, at: float) -> bool:
        """Whether a step whose number is `at` draws from it."""
        low, high = self.turn
        return low <= at < high

    def draw(self, seed: int, stage: str, step: int) -> list[Sample]:
        """The source's samples of one step."""
        return [self._sample(generator(seed, f"{stage}/{self.origin}", step, i), step, i) for i in range(self.count)]

    def _sample(self, draw: torch.Generator, step: int, index: int) -> Sample:
        prompts = self.latents.prompt
        owners = prompts.unique()  # sources take turns, however many windows each has
        mine = torch.nonzero(prompts == owners[(step * self.count + index) % len(owners)]).flatten()
        at = int(mine[int(torch.randint(len(mine), (1,), generator=draw))])
        variant = int(torch.randint(1, self.text.variants, (1,), generator=draw)) if self.text.variants > 1 else 0
        sigma = logit_normal_sigma(draw, 1, self.sigma_shift)[0]
        clean = self.latents.latents[at]
        noise = torch.randn(clean.shape, generator=draw)
        prompt = int(prompts[at])
        drops = self.drop_probability
        hidden = draw_hidden(self.text.token_counts[prompt], drops, draw) if drops else ()
        # Drawn last: with and without masks or estimates a sample has the same noise, sigma and tokens.
        estimated = bool(self.estimate_probability and torch.rand((), generator=draw) < self.estimate_probability)
        return Sample(
            source=self,
            clean=clean,
            noise=noise,
            sigma=sigma,
            row=self.text.row(prompt, variant),
            hidden=hidden,
            weight=self.weight / self.count,
            mask=self._mask(at, draw),
            estimated=estimated,
        )

    def _mask(self, at: int, draw: torch.Generator) -> Tensor | None:
        if self.latents.mask is None:
            return None
        whole = bool(torch.rand((), generator=draw) < self.full_mask_share)
        mask = self.latents.mask[at]
        return torch.ones_like(mask) if whole else mask


def micro_batches(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    """Consecutive parts of at most `size` samples; concept and prior may share one."""
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def coefficient_masks(
    shapes: dict[str, torch.Size], keep: float, rescale: bool, draw: torch.Generator
) -> dict[str, Tensor]:
    """One dropout mask per module for one step (Set-and-Sequence, section 4.3: `B' = B ⊙ M`).

    Args:
        shapes: module path to the shape of its coefficient matrix.
        keep: probability that an element stays.
        rescale: divides what stays by `keep` (inverted dropout); the paper does not say.
        draw: one generator, walked in the order of the sorted paths.

    Returns:
        Module path to a float32 mask of that shape.
    """
    scale = 1 / keep if rescale else 1.0
    return {path: (torch.rand(shapes[path], generator=draw) < keep).float() * scale for path in sorted(shapes)}
