"""A frozen base in parts, one in each process of a stage: torch's FSDP2 (`fully_shard`), block by block.

For a base whose weights fit on a device, but not beside the activations of training: it is whole while it loads and
while it samples. Each block is gathered from all processes when it computes, and dropped afterwards. The adapter stays
whole everywhere, since its few parameters learn, and its gradients are added up as those of any stage are.

The setting is `training.sharded`; a run opens the base anew after each such stage.
"""

from __future__ import annotations

import torch
from torch import nn

from pipeline_lib.errors import ConfigError
from pipeline_lib.training.ranks import Ranks
from pipeline_lib.training.stage import Stage


def check_shardable(stage: Stage, count: int) -> None:
    """Sees that all processes will call the denoiser alike, each call being an exchange.

    Args:
        stage: built.
        count: of processes.

    Raises:
        ConfigError: they would not; says what to change.
    """
    uneven = [samples for samples in stage.step_sizes() if samples % count]
    if uneven:
        raise ConfigError(
            f"training.sharded: each of {count} processes needs as many samples of a step",
            got=f"{uneven[0]} samples in stage {stage.spec.name}",
            fix="change method.settings.batch or training.processes",
        )
    if len(stage.base.experts()) > 1:
        raise ConfigError(
            "training.sharded: a base with two experts cannot be shared out: which one is called depends on the sample",
            fix="leave it out, or use training.storage or training.gradient_checkpointing to save memory",
        )
    if stage.self_conditioning is not None:
        raise ConfigError(
            "training.sharded: with self-conditioning the samples are not called alike",
            fix="set method.settings.self_conditioning to off, or leave training.sharded out",
        )


def shard(stage: Stage, ranks: Ranks) -> Ranks:
    """Leaves each process of a joined group its part of the base's weights; for good, so the base is opened anew later.

    Args:
        stage: built in all of them; see :func:`check_shardable`.
        ranks: this one's place.

    Returns:
        The place, of processes that keep in step.

    Raises:
        ConfigError: the stage's processes would not call the denoiser alike, or torch cannot divide its weights.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    check_shardable(stage, ranks.count)
    kept = _of_adapter(stage)
    ((_, denoiser),) = stage.base.experts()
    try:
        mesh = init_device_mesh(stage.base.device.type, (ranks.count,))
        for module in (*stage.base.blocks(), denoiser):
            # Said for the outermost module's own weights: they would stay gathered after a forward without a backward.
            fully_shard(module, mesh=mesh, ignored_params=kept, reshard_after_forward=True)
    except (RuntimeError, ValueError, AssertionError, NotImplementedError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "gloo" in str(error):
            raise  # known elsewhere: too little memory, and a process that is gone
        raise ConfigError(
            "training.sharded: torch cannot divide the weights of this base", got=str(error), fix="leave it out"
        ) from error
    return Ranks(ranks.rank, ranks.count, in_step=True)


def bytes_held(stage: Stage) -> int:
    """Bytes of the base's denoisers in this process, the adapter left out."""
    from torch.distributed.tensor import DTensor

    kept = _of_adapter(stage)
    weights = [value for _, denoiser in stage.base.experts() for value in denoiser.parameters() if value not in kept]
    local = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in weights]
    return sum(part.numel() * part.element_size() for part in local)


def _of_adapter(stage: Stage) -> set[nn.Parameter]:
    """What the adapter put in, also where it does not learn in this stage."""
    adapter = stage.adapter
    factors = [adapter.factors("basis"), adapter.factors("coefficients"), adapter.factors("residual")]
    return {parameter for kind in factors for parameter in kind.values()}
