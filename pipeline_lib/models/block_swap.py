"""Frozen blocks that live on the host and visit the device one at a time.

The base never changes, so nothing is ever copied back. A block comes when its forward pass begins, and again when its
backward pass begins; whoever was there before it leaves then, not earlier: with recomputation a block's second forward
pass runs inside its backward pass, and both need the weights. Copies are queued on the stream that computes, from
pinned memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_ALIGNED = 256  # bytes: what kernels and copies like their operands to begin at


class SwappedBlocks:
    """Keeps the frozen parameters of some blocks on the host until they are needed; what learns is on the device.

    Parameters that learn, and those that others put into a block later (a LoRA that is loaded), are brought to the
    device for good. The arithmetic is untouched: the same kernels on the same device, bit for bit. What a linear layer
    keeps for its backward pass is a view of the copy that visited, so training saves memory only where the blocks'
    activations are recomputed.

    Args:
        blocks: the repeated blocks of a denoiser, in the order of the forward pass.
        device: where they compute.

    Attributes:
        arrivals: how often a block was copied to the device, ever.
        present: number of the block that is on the device; None: none has been yet.
    """

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device) -> None:
        self._device = device
        self._host = [_HostCopy(block, pinned=device.type == "cuda") for block in blocks]
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
        def hook(block: nn.Module, _values: object) -> None:
            if index != self.present:
                if self.present is not None:
                    self._host[self.present].send_away()
                self._bring(index)
                self.present = index
            for parameter in block.parameters():
                if parameter.device.type != self._device.type:
                    parameter.data = parameter.data.to(self._device)

        return hook

    def _bring(self, index: int) -> None:
        self.arrivals += 1
        self._host[index].bring(self._device)


def compute_device(denoiser: nn.Module) -> torch.device:
    """Where a denoiser computes, though blocks of it may be on the host: where its last parameter is that is not."""
    devices = [parameter.device for parameter in denoiser.parameters()]
    away = [device for device in devices if device.type != "cpu"]
    return away[-1] if away else torch.device("cpu")


class _HostCopy:
    """A block's frozen parameters in one stretch of host memory for each dtype: one copy brings them all."""

    def __init__(self, block: nn.Module, *, pinned: bool) -> None:
        by_dtype: dict[torch.dtype, list[nn.Parameter]] = {}
        for parameter in block.parameters():
            if not parameter.requires_grad:
                by_dtype.setdefault(parameter.dtype, []).append(parameter)
        self._stretches = [_Stretch(parameters, pinned) for parameters in by_dtype.values()]
        self.send_away()

    def bring(self, device: torch.device) -> None:
        for stretch in self._stretches:
            stretch.point_into(stretch.host.to(device, non_blocking=True))

    def send_away(self) -> None:
        for stretch in self._stretches:
            stretch.point_into(stretch.host)


class _Stretch:
    """Parameters of one dtype, laid out one after the other."""

    def __init__(self, parameters: Sequence[nn.Parameter], pinned: bool) -> None:
        self._parameters = parameters
        step = max(1, _ALIGNED // parameters[0].element_size())
        self._starts, size = [], 0
        for parameter in parameters:
            self._starts.append(size)
            size += -(-parameter.numel() // step) * step
        self.host = torch.zeros(size, dtype=parameters[0].dtype)
        for parameter, view in zip(parameters, self._views(self.host), strict=True):
            view.copy_(parameter.data)
            parameter.data = view
        if pinned and _pin(self.host):
            # Holds the memory until it is pinned no more.
            weakref.finalize(self, _unpin, self.host).atexit = False

    def point_into(self, memory: Tensor) -> None:
        """The parameters' values are this memory's from now on."""
        for parameter, view in zip(self._parameters, self._views(memory), strict=True):
            parameter.data = view

    def _views(self, memory: Tensor) -> list[Tensor]:
        return [
            memory[start : start + parameter.numel()].view(parameter.shape)
            for start, parameter in zip(self._starts, self._parameters, strict=True)
        ]


def _pin(memory: Tensor) -> bool:
    """Pins memory where it is, if it can: `Tensor.pin_memory` would round its size up to a power of two."""
    runtime: Any = torch.cuda.cudart()
    return int(runtime.cudaHostRegister(memory.data_ptr(), memory.nbytes, 0)) == 0


def _unpin(memory: Tensor) -> None:
    runtime: Any = torch.cuda.cudart()
    runtime.cudaHostUnregister(memory.data_ptr())
