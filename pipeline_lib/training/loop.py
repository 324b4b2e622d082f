"""The training loop. It runs a :class:`~pipeline_lib.training.stage.Stage` and knows no method."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from pipeline_lib.errors import NonFiniteError, StopRequested
from pipeline_lib.records import StepRecord
from pipeline_lib.training.batch import micro_batches
from pipeline_lib.training.checkpoint import Checkpoints
from pipeline_lib.training.ranks import ALONE, Ranks
from pipeline_lib.training.stage import Stage

READ_BACK_EVERY = 10

OnStep = Callable[[StepRecord], None]


def run_stage(
    stage: Stage,
    checkpoints: Checkpoints,
    *,
    on_step: OnStep,
    stop: Callable[[], bool] = lambda: False,
    validate_every: int = 50,
    ranks: Ranks = ALONE,
) -> list[StepRecord]:
    """Trains a stage to its end, from its last checkpoint if there is one.

    Args:
        stage: built by a method; its parameters are changed in place.
        checkpoints: where progress is kept; the caller removes it when the result is stored.
        on_step: told every step once, in order, those before a resume included; in groups of
            READ_BACK_EVERY, so that the device is not made to wait for the host.
        stop: asked after every step; when true a checkpoint is written and StopRequested raised.
        validate_every: steps between two validations; the first and the last step always have one.
        ranks: this process among those that train the stage; all of them read one checkpoint, the first one writes
            it, and when one is asked to stop, all do.

    Returns:
        One record per step.

    Raises:
        NonFiniteError: a loss or gradient was not finite; no parameter was stepped with it.
        StopRequested: `stop` said so.
        PeerLostError: another process of the stage is gone.
    """
    parameters = stage.trainable()
    optimizer = make_optimizer(stage)
    history = checkpoints.restore(parameters, optimizer)
    for record in history:
        on_step(record)
    pending: list[tuple[int, dict[str, Tensor], float]] = []
    for step in range(len(history), stage.spec.steps):
        started = time.perf_counter()
        metrics = train_step(stage, optimizer, step, ranks)
        if ranks.validates and (step % validate_every == 0 or step + 1 == stage.spec.steps):
            metrics["validation_loss"] = torch.tensor(stage.validate())
        pending.append((step, metrics, time.perf_counter() - started))
        stopping = ranks.agreed(stop())
        due = (step + 1) % checkpoints.every == 0
        if len(pending) == READ_BACK_EVERY or due or stopping or step + 1 == stage.spec.steps:
            for record in _read_back(stage, pending):
                history.append(record)
                on_step(record)
            pending.clear()
        if ranks.first and (due or stopping):
            checkpoints.save(parameters, optimizer, history)
        if stopping:
            raise StopRequested(f"stopped after step {step + 1} of {stage.spec.steps}; run again to go on from there")
    if ranks.first:
        checkpoints.save(parameters, optimizer, history)
    return history


def make_optimizer(stage: Stage) -> torch.optim.AdamW:
    """Fused AdamW over what the stage learns."""
    settings = stage.optimizer
    return torch.optim.AdamW(stage.parameter_groups(), betas=settings.betas, fused=True)


def train_step(stage: Stage, optimizer: torch.optim.AdamW, step: int, ranks: Ranks = ALONE) -> dict[str, Tensor]:
    """One optimizer step over all micro-batches.

    A step whose gradient is not finite is skipped on the device itself (the fused optimizer's
    `found_inf`, made for gradient scaling), and so are all after it, until the host reads the metrics
    back and raises: no host synchronisation, and nothing stepped with it.

    Args:
        stage: draws its samples and computes their loss.
        optimizer: over the parameters that learn.
        step: counts from 0; the counter of all that is drawn.
        ranks: who computes which of the samples; there are no more processes than samples.

    Returns:
        Scalars still on the device: loss, its parts, gradient norm.
    """
    metrics: dict[str, Tensor] = {}
    for samples in micro_batches(ranks.share(stage.draw(step)), stage.micro_batch):
        loss, parts = stage.loss(samples)
        loss.backward()
        for name, value in {"loss": loss.detach(), **parts}.items():
            metrics[name] = metrics[name] + value if name in metrics else value
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * stage.rate_factor(step)
    learning = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    metrics = ranks.add_up(learning, metrics)
    norm = torch.nn.utils.clip_grad_norm_(learning, stage.optimizer.max_gradient_norm)
    bad = (~torch.isfinite(norm + metrics["loss"])).float()
    optimizer.found_inf = torch.maximum(bad, getattr(optimizer, "found_inf", bad))  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {**metrics, "gradient_norm": norm}


def _read_back(stage: Stage, pending: list[tuple[int, dict[str, Tensor], float]]) -> list[StepRecord]:
    records = []
    for step, metrics, seconds in pending:
        values = {name: float(value) for name, value in metrics.items()}
        if not all(math.isfinite(value) for value in values.values()):
            raise NonFiniteError(
                f"stage {stage.spec.name}, step {step + 1}: {values} is not finite; nothing was stepped with it; "
                "lower the learning rate or look at the clip"
            )
        records.append(
            StepRecord(stage=stage.spec.name, step=step + 1, steps=stage.spec.steps, metrics=values, seconds=seconds)
        )
    return records
