"""The processes that train one stage together, and what they say to each other.

Each holds all the data, draws every sample of a step by its counter, computes its own share, and then adds up gradients
and losses with the others: both are sums over samples, so the step is the one that a single process makes, up to the
rounding of another order of addition. The sum is one flat all-reduce after the last micro-batch, not the hooks of
DistributedDataParallel: an adapter's parameters are few, so there is nothing to hide behind the backward pass; a base
is no module whose forward could be wrapped; and micro-batches would need the hooks held back.

The group is torch's own: accelerate keeps one state for a process's life, and a worker lives through several groups.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn

from pipeline_lib.errors import WorkerError

PATIENCE = timedelta(hours=1)
"""How long the others wait while the first process validates or makes a preview; a death is noticed at once."""
_LOOK_SECONDS = 0.05

_Item = TypeVar("_Item")


class PeerLostError(WorkerError):
    """Another process of the stage is gone; why, it or the operating system tells."""


@dataclass(frozen=True)
class Ranks:
    """One process among those that train a stage.

    Attributes:
        rank: its number, from 0; the first one writes and tells.
        count: how many there are; nothing is exchanged where it is alone.
        in_step: all call the denoiser as often, since each holds a part of it (:mod:`pipeline_lib.training.sharding`).
    """

    rank: int = 0
    count: int = 1
    in_step: bool = False

    @property
    def first(self) -> bool:
        """Whether it is the one that writes checkpoints, and tells."""
        return self.rank == 0

    @property
    def validates(self) -> bool:
        """Whether it computes the validation loss: the first one does, and those that it needs for that."""
        return self.first or self.in_step

    def share(self, items: Sequence[_Item]) -> Sequence[_Item]:
        """This process's part: every `count`-th, so that each gets as many of every source."""
        return items[self.rank :: self.count]

    def agreed(self, flag: bool) -> bool:
        """Whether any process raised its flag, the same answer in all.

        Args:
            flag: this one's.

        Returns:
            The flags' disjunction.

        Raises:
            PeerLostError: a process is gone.
        """
        return flag if self.count == 1 else bool(_added(torch.tensor(int(flag))))

    def add_up(self, parameters: Sequence[nn.Parameter], metrics: dict[str, Tensor]) -> dict[str, Tensor]:
        """Puts the sum over all processes in the place of each gradient.

        A parameter that got a gradient nowhere keeps none, so that the optimizer leaves it alone, as it would in a
        single process. Who got which is exchanged between the hosts, and does not wait for the device.

        Args:
            parameters: in the same order in all processes.
            metrics: scalars, of the same names in all processes.

        Returns:
            The sums of the metrics.

        Raises:
            PeerLostError: a process is gone.
        """
        if self.count == 1:
            return metrics
        counts = _added(torch.tensor([int(parameter.grad is not None) for parameter in parameters])).tolist()
        reached = [parameter for parameter, count in zip(parameters, counts, strict=True) if count]
        parts = [torch.zeros_like(one) if one.grad is None else one.grad for one in reached] + list(metrics.values())
        flat = _added(torch.cat([part.flatten() for part in parts]))
        sums = [total.view_as(part) for total, part in zip(flat.split([p.numel() for p in parts]), parts, strict=True)]
        for parameter, total in zip(reached, sums, strict=False):
            parameter.grad = total
        return dict(zip(metrics, sums[len(reached) :], strict=True))


ALONE = Ranks()


@contextmanager
def joined(
    ranks: Ranks, meeting: Path, device: torch.device, while_waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """This process as a member of the group, inside.

    Args:
        ranks: which one it is.
        meeting: a file on this machine that is not there yet, the same for all; no port is opened for the meeting.
        device: where it computes: GPUs talk over NCCL, hosts over Gloo and the loopback interface.
        while_waiting: called again and again until all have come; raises when that is in vain. torch's own meeting
            would not look up before :data:`PATIENCE` is over.

    Raises:
        PeerLostError: another process is gone, also where a base in parts is fetched in the midst of a pass.
    """
    from accelerate.utils import patch_environment

    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    store = torch.distributed.FileStore(str(meeting), ranks.count)  # type: ignore[attr-defined]
    _meet(store, ranks, while_waiting)
    with patch_environment(gloo_socket_ifname=loopback):
        _or_lost(
            lambda: torch.distributed.init_process_group(
                backend, store=store, rank=ranks.rank, world_size=ranks.count, timeout=PATIENCE
            )
        )
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.distributed.DistError) or "gloo" in str(error):
            raise _lost(error) from error
        raise
    finally:
        torch.distributed.destroy_process_group()


def _meet(store: Any, ranks: Ranks, while_waiting: Callable[[], None]) -> None:
    """Waits until all are here, ready to be joined without waiting."""
    store.set(f"came {ranks.rank}", "")
    while not store.check([f"came {rank}" for rank in range(ranks.count)]):
        while_waiting()
        time.sleep(_LOOK_SECONDS)


def _added(values: Tensor) -> Tensor:
    _or_lost(lambda: torch.distributed.all_reduce(values))
    return values


def _or_lost(exchange: Callable[[], object]) -> None:
    try:
        exchange()
    except RuntimeError as error:  # torch.distributed's own errors, and Gloo's plain ones
        raise _lost(error) from error


def _lost(error: RuntimeError) -> PeerLostError:
    return PeerLostError(f"another process of the stage is gone: {str(error).splitlines()[0]}")
