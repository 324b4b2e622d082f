"""Activations that the backward pass computes again: all of a block's, or all but what attention gave.

Attention is most of a long video's forward pass (0.78 of the FLOPs of Wan-1.3B at 81×480×832) and little of its memory:
its output, as large as the block's input, and one number for each row and head. Kept, it is not computed again, and the
bits are the same, also where blocks are compiled: its kernels are calls of their own there. Queries, keys and values,
which its backward pass needs as well, are computed again like all else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

_FUSED = torch.ops.aten
_ATTENTION = (
    _FUSED._scaled_dot_product_flash_attention.default,
    _FUSED._scaled_dot_product_efficient_attention.default,
    _FUSED._scaled_dot_product_cudnn_attention.default,
    _FUSED._scaled_dot_product_flash_attention_for_cpu.default,
)


def recomputing(*, keep_attention: bool) -> Callable[..., Any]:
    """What calls a function now, and again in the backward pass.

    Args:
        keep_attention: what fused attention gave is kept from the first call.

    Returns:
        A function of a function and its inputs; the outputs.
    """
    if not keep_attention:
        return partial(checkpoint, use_reentrant=False)
    return partial(
        checkpoint, use_reentrant=False, context_fn=partial(create_selective_checkpoint_contexts, _all_but_attention)
    )


def _all_but_attention(_context: object, operation: object, *_inputs: object, **_named: object) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _ATTENTION else CheckpointPolicy.PREFER_RECOMPUTE
