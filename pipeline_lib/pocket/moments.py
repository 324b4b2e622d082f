"""Training on some frames of a clip, each at its own place in time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

_LONGEST_STRIDE = 3


def draw_moments(rng: np.random.Generator, length: int, count: int) -> tuple[int, ...]:
    """Evenly spaced frames of a clip: neighbours, every second or every third one.

    Args:
        rng: source of the draw.
        length: frames of the clip.
        count: frames wanted, at most `length`.

    Returns:
        Their indices, rising.
    """
    longest = _LONGEST_STRIDE if count == 1 else min(_LONGEST_STRIDE, (length - 1) // (count - 1))
    stride = int(rng.integers(1, longest + 1))
    first = int(rng.integers(length - stride * (count - 1)))
    return tuple(range(first, first + stride * count, stride))


class Moments:
    """Gives the frames that a transformer sees the rotary places of the clip that they were taken from.

    Args:
        rope: of a ``WanTransformer3DModel``.
        length: frames of a whole clip.
    """

    def __init__(self, rope: nn.Module, length: int) -> None:
        self.current: Sequence[int] | None = None
        self._length = length
        rope.register_forward_pre_hook(self._whole_clip)
        rope.register_forward_hook(self._pick)

    def _whole_clip(self, _module: nn.Module, inputs: tuple[Tensor]) -> Any:
        if self.current is None:
            return None
        batch, channels, _, height, width = inputs[0].shape
        return (inputs[0].new_empty(batch, channels, self._length, height, width),)

    def _pick(self, _module: nn.Module, _inputs: tuple[Tensor], places: tuple[Tensor, Tensor]) -> Any:
        if self.current is None:
            return None
        return tuple(place.unflatten(1, (self._length, -1))[:, list(self.current)].flatten(1, 2) for place in places)
