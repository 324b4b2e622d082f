"""The loop that trains each of the judge's networks: seeded, in pieces, the average is what counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline_lib.errors import NonFiniteError
from pipeline_lib.pocket.orthogonal import Orthogonal
from pipeline_lib.pocket.pieces import Average, Piece, learning_rate_factor

Losses = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """How one network is trained.

    Attributes:
        steps: optimizer steps in all.
        peak_rate: peak learning rate, of Muon on hidden matrices and kernels and of AdamW on the rest.
        average: decay of the weights' moving average.
        log_every: steps between two lines of the log.
    """

    steps: int
    peak_rate: float = 4e-3
    average: float = 0.99
    log_every: int = 50


def _optimizers(network: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    hidden = [value for name, value in network.named_parameters() if value.ndim >= 2 and "trunk" in name]
    kept = {id(value) for value in hidden}
    others = [value for value in network.parameters() if id(value) not in kept]
    adam = torch.optim.AdamW(others, rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    return [Orthogonal(hidden, rate), adam] if hidden else [adam]


def train_network(
    network: nn.Module, losses: Callable[[int], Losses], piece: Piece, settings: NetworkSettings
) -> tuple[dict[str, Tensor], int]:
    """Train one piece.

    Args:
        network: what is trained, fresh; a checkpoint is loaded into it.
        losses: the named losses of a step; their sum is minimised.
        piece: checkpoints and deadline.
        settings: the recipe.

    Returns:
        The averaged weights with the buffers, and the number of steps done.

    Raises:
        NonFiniteError: when a loss is not finite.
    """
    network.to(memory_format=torch.channels_last)
    optimizers = _optimizers(network, settings.peak_rate)
    average, step = Average(network, settings.average), 0
    state = piece.load()
    if state:
        network.load_state_dict(state["network"])
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        average.load_state(state["average"])
        step = int(state["step"])
    network.train()
    while step < settings.steps and not piece.over:
        named = losses(step)
        loss = torch.stack(list(named.values())).sum()
        if not torch.isfinite(loss):
            raise NonFiniteError(f"{piece.name}: the loss of step {step} is {loss.item()}")
        network.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        rate = settings.peak_rate * learning_rate_factor(step, settings.steps, warmup=40, decay=0.6)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
        average.update(network)
        step += 1
        if step % settings.log_every == 0:
            piece.log({"step": step, **{name: value.item() for name, value in named.items()}})
        if piece.due or piece.over or step == settings.steps:
            piece.save(
                {
                    "network": network.state_dict(),
                    "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                    "average": average.state(),
                    "step": step,
                }
            )
    return {**network.state_dict(), **average.values}, step
