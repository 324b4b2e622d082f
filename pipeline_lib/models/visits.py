"""Encoders that live on the host and visit the device one at a time.

Text encoders are as large as denoisers, and none of them works while another part does. So each comes when it is
called, and leaves when the next one or the denoiser is. Their weights are frozen, so nothing is copied back; hooks and
learned words stay on them. On a CPU, coming and leaving copy nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate.hooks import ModelHook
from torch import Tensor, nn

from pipeline_lib.errors import ResourceError


class Visits(ModelHook):
    """At most one guest on the device.

    It is the guests' hook in accelerate's sense: a stock pipeline asks that where it computes, and diffusers calls it
    before an autoencoder's `encode` and `decode`, which are no forward passes.

    Args:
        device: where guests compute.

    Attributes:
        execution_device: the same.
        present: the guest that is there.
        arrivals: how often one came, ever.
        in_graph: the guest was called with gradients on: its backward pass will look for its weights.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.execution_device = device
        self.present: nn.Module | None = None
        self.arrivals = 0
        self.in_graph = False
        self._home: list[tuple[nn.Parameter, Tensor]] = []

    def invite(self, guest: nn.Module) -> None:
        """From now on this frozen module, which is on the host, comes when it is called; its buffers stay there."""
        for buffer in guest.buffers():
            buffer.data = buffer.data.to(self.execution_device)
        hooked: Any = guest
        hooked._hf_hook = self
        guest.register_forward_pre_hook(lambda module, _: self.arrive(module))

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Accelerate's form of :meth:`arrive`."""
        self.arrive(module)
        return args, kwargs

    def arrive(self, guest: nn.Module) -> None:
        """Brings a guest, after whoever is there has left.

        Args:
            guest: an invited module.

        Raises:
            ResourceError: it does not fit on the device; it is on the host again.
        """
        if guest is not self.present:
            self._bring(guest)
        self.in_graph = torch.is_grad_enabled()

    def _bring(self, guest: nn.Module) -> None:
        self.leave()
        self._home = [(parameter, parameter.data) for parameter in guest.parameters()]
        try:
            for parameter, host in self._home:
                parameter.data = host.to(self.execution_device)
        except torch.OutOfMemoryError as error:
            self.leave()
            raise ResourceError(
                f"{type(guest).__name__} does not fit on {self.execution_device} beside what is there: {error}"
            ) from error
        self.present = guest
        self.arrivals += 1

    def leave(self) -> None:
        """Sends home whoever is there."""
        for parameter, host in self._home:
            parameter.data = host
        self._home, self.present, self.in_graph = [], None, False
