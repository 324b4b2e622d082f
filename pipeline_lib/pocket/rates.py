"""Several optimizers for one model: each kind of parameter moves at its own pace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from pipeline_lib.pocket.orthogonal import Orthogonal

MATRIX = "matrix"
"""The kind that Muon trains; all others are AdamW's."""


class PacedOptimizers:
    """One optimizer for each kind of parameter.

    AdamW's step is as large for every element, whatever its size: what a patch of two thousand pixels feeds must
    move far more slowly than a bias or a word's row.

    Args:
        named: parameters by name.
        kind_of: tells the kind of a parameter; one of the keys of `rates`.
        rates: peak learning rate by kind.
    """

    def __init__(
        self, named: Iterable[tuple[str, Tensor]], kind_of: Callable[[str, Tensor], str], rates: Mapping[str, float]
    ) -> None:
        groups: dict[str, list[Tensor]] = {kind: [] for kind in rates}
        for name, value in named:
            groups[kind_of(name, value)].append(value)
        self._rates = {kind: rate for kind, rate in rates.items() if groups[kind]}
        self._optimizers: dict[str, torch.optim.Optimizer] = {
            kind: Orthogonal(groups[kind], lr=rate, weight_decay=0.02)
            if kind == MATRIX
            else torch.optim.AdamW(groups[kind], lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
            for kind, rate in self._rates.items()
        }

    def step(self, factor: float) -> None:
        """Step all, and drop the gradients.

        Args:
            factor: of the peak rates.
        """
        for kind, optimizer in self._optimizers.items():
            optimizer.param_groups[0]["lr"] = self._rates[kind] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """What :meth:`load_state` takes."""
        return {kind: optimizer.state_dict() for kind, optimizer in self._optimizers.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state` was taken."""
        for kind, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state[kind])
