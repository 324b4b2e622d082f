"""A frozen base in parts, one in each process of a stage: torch's FSDP2 (`fully_shard`), block by block.

For a base whose weights fit on a device, but not beside the activations of training: it is whole while it loads and
while it samples. Each block is gathered from all processes when it computes, and dropped afterwards. The adapter stays
whole everywhere, since its few parameters learn, and its gradients are added up as those of any stage are.

No setting of a run reaches this yet: whoever uses the library shards a stage by hand.
"""

from __future__ import annotations

from torch import nn

from pipeline_lib.errors import InputError
from pipeline_lib.training.ranks import Ranks
from pipeline_lib.training.stage import Stage


def shard(stage: Stage, ranks: Ranks) -> Ranks:
    """Leaves each process of a joined group its part of the base's weights; for good, so the base is opened anew later.

    All processes must call the denoiser alike, each call being an exchange: that is checked here.

    Args:
        stage: built in all of them.
        ranks: this one's place.

    Returns:
        The place, of processes that keep in step.

    Raises:
        InputError: the stage's processes would not call the denoiser alike.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    samples = sum(source.count for source in stage.sources)
    if samples % ranks.count:
        raise InputError(
            f"a sharded base needs as many samples in each of {ranks.count} processes", got=f"{samples} samples a step"
        )
    if len(stage.base.experts()) > 1 or stage.self_conditioning is not None:
        raise InputError("a base with two experts, or with self-conditioning, cannot be sharded: its calls vary")
    mesh = init_device_mesh(stage.base.device.type, (ranks.count,))
    kept = _of_adapter(stage)
    ((_, denoiser),) = stage.base.experts()
    for module in (*stage.base.blocks(), denoiser):
        # Said for the outermost module's own weights: they would stay gathered after a forward without a backward.
        fully_shard(module, mesh=mesh, ignored_params=kept, reshard_after_forward=True)
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
