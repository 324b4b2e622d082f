"""Frozen linear layers whose weights are kept in 4 bits, by bitsandbytes: nf4, 16 levels of a normal distribution.

diffusers reaches the same layers through `BitsAndBytesConfig` while it reads a model, and refuses a machine without a
GPU. Here the layers of the repeated blocks are changed one by one after reading, each on the device that it will stay
on: no copy of the model at full width is ever there, and a CPU computes the same.

Source: Dettmers et al., QLoRA, 2023, arXiv 2305.14314.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pipeline_lib.errors import ConfigError


def require_bitsandbytes() -> None:
    """Looks for the package.

    Raises:
        ConfigError: it is not installed, or does not work here.
    """
    try:
        import bitsandbytes  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        raise ConfigError(
            "training.storage: nf4 needs the package bitsandbytes",
            got=str(error),
            fix="pip install 'mannerism[quantised]', or choose fp8, which needs no package",
        ) from error


def nf4_bytes(weights: int) -> int:
    """Bytes that a layer's weights take: half a byte each, a byte for 64 of them, 4 bytes for 256 of those.

    The last two are the scales and, double quantised, the scales' own (QLoRA, section 3). A layer's two tables, about a
    kilobyte, are left out.

    Args:
        weights: how many.

    Returns:
        Bytes.
    """
    scales = -(-weights // 64)
    return -(-weights // 2) + scales + 4 * -(-scales // 256)


@torch.no_grad()
def to_nf4(blocks: Sequence[nn.Module], device: torch.device, dtype: torch.dtype) -> None:
    """Changes the linear layers of blocks, in place, and brings them to a device.

    Layers in another dtype than the model's, which a family keeps wide on purpose, are left as they are.

    Args:
        blocks: the repeated blocks of a denoiser, frozen.
        device: where the layers will be.
        dtype: that they compute in.
    """
    for block in blocks:
        for name, layer in list(block.named_modules()):
            if type(layer) is nn.Linear and layer.weight.dtype == dtype:
                block.set_submodule(name, _in_four_bits(layer, device))


def _in_four_bits(layer: nn.Linear, device: torch.device) -> nn.Module:
    from bitsandbytes.nn import Linear4bit, Params4bit

    sizes, dtype = (layer.in_features, layer.out_features, layer.bias is not None), layer.weight.dtype
    small: Any = Linear4bit(*sizes, compute_dtype=dtype, quant_type="nf4", device="meta")
    small.weight = Params4bit(layer.weight.data, quant_type="nf4", module=small)
    small.bias = layer.bias
    # A forward pass without gradients would repack the weights for some processors, and the next training step would
    # read them in that order.
    small.support_avx512bf16_for_cpu = False
    moved: nn.Module = small.to(device).eval().requires_grad_(False)
    return moved
