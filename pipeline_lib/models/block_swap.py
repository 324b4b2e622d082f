"""Frozen blocks that live on the host and visit the device one at a time.

The base never changes, so nothing is ever copied back. A block comes when its forward pass begins, and again when its
backward pass begins; whoever was there before it leaves then, not earlier: with recomputation a block's second forward
pass runs inside its backward pass, and both need the weights. Copies are queued on the stream that computes, from
pinned memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class SwappedBlocks:
    """Keeps the frozen parameters of some blocks on the host until they are needed; adapters stay on the device.

    Parameters that learn are left where they are. The arithmetic is untouched: the same kernels on the same device,
    bit for bit. What a linear layer keeps for its backward pass is a view of the copy that visited, so training saves
    memory only where the blocks' activations are recomputed.

    Args:
        blocks: the repeated blocks of a denoiser, in the order of the forward pass.
        device: where they compute.

    Attributes:
        arrivals: how often a block was copied to the device, ever.
        present: number of the block that is on the device; None: none has been yet.
    """

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device) -> None:
        self._device = device
        self._host = [_frozen_on_host(block, device) for block in blocks]
        self.present: int | None = None
        self.arrivals = 0
        self._handles: list[Any] = []
        for index, block in enumerate(blocks):
            self._handles.append(block.register_forward_pre_hook(self._arriving(index)))
            self._handles.append(block.register_full_backward_pre_hook(self._arriving(index)))

    def remove(self) -> None:
        """Brings every block back to the device, for good."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for index in range(len(self._host)):
            if index != self.present:
                self._bring(index)

    def _arriving(self, index: int) -> Any:
        def hook(_block: nn.Module, _values: object) -> None:
            if index == self.present:
                return
            if self.present is not None:
                self._send_away(self.present)
            self._bring(index)
            self.present = index

        return hook

    def _bring(self, index: int) -> None:
        self.arrivals += 1
        for parameter, host in self._host[index]:
            parameter.data = host.to(self._device, non_blocking=True)

    def _send_away(self, index: int) -> None:
        for parameter, host in self._host[index]:
            parameter.data = host


def compute_device(denoiser: nn.Module) -> torch.device:
    """Where a denoiser computes, though blocks of it may be on the host: where its last parameter is that is not."""
    devices = [parameter.device for parameter in denoiser.parameters()]
    away = [device for device in devices if device.type != "cpu"]
    return away[-1] if away else torch.device("cpu")


def _frozen_on_host(block: nn.Module, device: torch.device) -> list[tuple[nn.Parameter, Tensor]]:
    """The block's frozen parameters with their copies on the host, which they hold from now on."""
    pairs = []
    for parameter in block.parameters():
        if parameter.requires_grad:
            continue
        host = parameter.data.to("cpu")
        host = host.pin_memory() if device.type == "cuda" else host
        parameter.data = host
        pairs.append((parameter, host))
    return pairs
