"""Muon for matrices and convolution kernels: momentum, made orthogonal, then applied.

After Keller Jordan et al., "Muon: an optimizer for hidden layers" (2024). ``torch.optim.Muon``
takes matrices only; kernels here count as matrices of shape (out, everything else).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from pipeline_lib.pocket.ranks import Ranks

_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalise(matrix: Tensor, rounds: int = 5) -> Tensor:
    """Push all singular values of a matrix towards 1 (quintic Newton–Schulz, bfloat16).

    Args:
        matrix: shape (…, rows, columns).
        rounds: iterations.

    Returns:
        Same shape, bfloat16.
    """
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = (matrix.mT if tall else matrix).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.mT if tall else x


class Orthogonal(torch.optim.Optimizer):
    """Muon over parameters of two or more dimensions; the step is as large as AdamW's.

    Args:
        parameters: what is trained.
        lr: learning rate on AdamW's scale.
        momentum: weight of the past in the running gradient.
        weight_decay: decoupled decay.
        ranks: equal processes that hold equal gradients and share the work; by default each does all of it.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        ranks: Ranks | None = None,
    ) -> None:
        self.ranks = ranks
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step.

        Args:
            closure: must be None: the gradients are there already.
        """
        assert closure is None
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for value in group["params"]:
                if value.grad is not None:
                    alike.setdefault(value.shape, []).append(value)
            for values in alike.values():
                self._update(values, group)

    def _ahead(self, value: Tensor, momentum: float) -> Tensor:
        """Nesterov's look ahead of one gradient, as a matrix."""
        assert value.grad is not None
        state = self.state[value]
        if not state:
            state["running"] = torch.zeros_like(value)
        state["running"].lerp_(value.grad, 1.0 - momentum)
        ahead = value.grad.lerp(state["running"], momentum)
        return ahead[_trained(value)].reshape(value.shape[0], -1)

    def _update(self, values: list[Tensor], group: dict[str, Any]) -> None:
        """Step parameters of one shape together: many small products cost less as one."""
        ahead = torch.stack([self._ahead(value, group["momentum"]) for value in values])
        size = 0.2 * max(ahead.shape[1:]) ** 0.5
        directions = self.ranks.split_work(orthogonalise, ahead) if self.ranks else orthogonalise(ahead)
        for value, direction in zip(values, directions, strict=True):
            value.mul_(1.0 - group["lr"] * group["weight_decay"])
            part = value[_trained(value)]
            part.add_(direction.to(value.dtype).reshape(part.shape), alpha=-group["lr"] * size)


def _trained(value: Tensor) -> tuple[slice | int, ...]:
    # Of a causal kernel only the newest tap is trained; the past stays zero.
    return (slice(None), slice(None), -1) if value.ndim == 5 else (slice(None),)
