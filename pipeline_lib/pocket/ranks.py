"""Training in several processes that each take a part of the batch (started by ``torchrun``).

On a busy CPU one thread per process is far faster than many threads in one process: threads meet
after every operation, processes once per step.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, distributed


class Ranks:
    """This process among its equals; alone when not started by ``torchrun``.

    Attributes:
        rank: number of this process.
        count: number of processes.
    """

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        if self.count > 1 and not distributed.is_initialized():
            distributed.init_process_group("gloo")
            # Left open, its threads can abort the process when the interpreter ends.
            atexit.register(distributed.destroy_process_group)

    @property
    def first(self) -> bool:
        """Whether this process writes checkpoints and the log."""
        return self.rank == 0

    def split_work(self, work: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """Each process works on its part of the rows; all get everything.

        Args:
            work: takes and gives tensors of as many rows; rows do not know each other.
            rows: shape (N, ...), the same in every process.

        Returns:
            Shape (N, ...).
        """
        if self.count == 1:
            return work(rows)
        done = torch.zeros_like(rows, dtype=torch.float32)
        mine = slice(self.rank, None, self.count)
        if self.rank < len(rows):
            done[mine] = work(rows[mine]).float()
        distributed.all_reduce(done)
        return done

    def average_gradients(self, parameters: Sequence[Tensor], stop: bool) -> bool:
        """Average gradients over processes, in place, and agree on stopping.

        Args:
            parameters: what is trained; those without a gradient are left out, the same in all processes.
            stop: whether this process wants to stop.

        Returns:
            Whether any process wants to stop.
        """
        if self.count == 1:
            return stop
        gradients = [value.grad for value in parameters if value.grad is not None]
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), torch.tensor([float(stop)])])
        distributed.all_reduce(flat)
        parts = flat[:-1].div_(self.count).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        return bool(flat[-1] > 0)
