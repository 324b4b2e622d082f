"""What makes a large denoiser fit, or a step faster: 8-bit or 4-bit storage, blocks on the host, compiled blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import torch
from torch import nn

from pipeline_lib.errors import ConfigError
from pipeline_lib.models.block_swap import SwappedBlocks
from pipeline_lib.models.nf4 import require_bitsandbytes, to_nf4

_KINDS_OF_CALL = 64

Storage = Literal["full", "fp8", "nf4"]


@dataclass(frozen=True, kw_only=True)
class Economy:
    """How a frozen denoiser is kept and run.

    Attributes:
        storage: "fp8" keeps the weights in 8 bits and widens each layer's while it computes (diffusers'
            `enable_layerwise_casting`); "nf4" keeps those of the blocks' linear layers in 4 bits. What is learned then
            differs by the error of that rounding.
        swapped_blocks: so many blocks of each denoiser, the last ones, live on the host and visit the device one at a
            time.
        compiled: each block is compiled once and shares its code with its like.
    """

    storage: Storage = "full"
    swapped_blocks: int = 0
    compiled: bool = False

    def __post_init__(self) -> None:
        """Fails before anything is loaded where a package is missing."""
        if self.storage == "nf4":
            require_bitsandbytes()

    def settle(self, denoiser: Any, blocks: Sequence[nn.Module], device: torch.device, dtype: torch.dtype) -> None:
        """Brings a denoiser that is on the host to its device, this way.

        Args:
            denoiser: a diffusers model, all on the host.
            blocks: its repeated blocks, in the order of the forward pass.
            device: where it computes.
            dtype: that it computes in.

        Raises:
            ConfigError: more blocks are to be swapped than there are.
            torch.OutOfMemoryError: what stays on the device does not fit there.
        """
        if self.swapped_blocks > len(blocks):
            raise ConfigError(
                "training.swapped_blocks: the denoiser has fewer blocks",
                got=str(self.swapped_blocks),
                expected=f"at most {len(blocks)}",
            )
        if self.storage == "fp8":
            denoiser.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)
        elif self.storage == "nf4":
            to_nf4(blocks, device, dtype)
        away = list(blocks)[len(blocks) - self.swapped_blocks :]
        if away:
            SwappedBlocks(away, device)  # the blocks' hooks keep it
            swapped = {id(value) for block in away for value in block.parameters()}
            for value in chain(denoiser.parameters(), denoiser.buffers()):
                if id(value) not in swapped:
                    value.data = value.data.to(device)
        else:
            denoiser.to(device)
        if self.compiled:
            # Samples, validation, first and other blocks, both stages: more kinds of call than the default allows for.
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _KINDS_OF_CALL)
            for block in blocks:
                block.compile()
