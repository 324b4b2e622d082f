"""The encoder seams. The contract stands here once; implementations say only what differs."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray


@runtime_checkable
class FrameEncoder(Protocol):
    """Turns frames into unit vectors.

    Deterministic: the same call gives the same bits; other frames beside a frame change its vector by rounding
    at most. Three strings make every score that rests on an encoder traceable.
    """

    @property
    def name(self) -> str:
        """The encoder's id, e.g. a hub id or a folder's name."""

    @property
    def digest(self) -> str:
        """SHA-256 over the weights (names, types, shapes, bytes); equal weights in another file give the same."""

    @property
    def preprocessing(self) -> str:
        """What happens to a frame before the network, as a short id: resize, crop, mean, standard deviation."""

    def frames(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        """Embed frames.

        Args:
            frames: (T, H, W, 3), RGB, T ≥ 1.

        Returns:
            float32 (T, d) on the CPU, each row of length 1.
        """


@runtime_checkable
class ImageTextEncoder(FrameEncoder, Protocol):
    """A frame encoder whose space also holds texts."""

    def text(self, text: str) -> torch.Tensor:
        """Embed one text, cut where the encoder's own limit ends it (CLIP: 77 tokens).

        Args:
            text: plain words; placeholders already removed (:func:`pipeline_lib.features.image_text.plain_prompt`).

        Returns:
            float32 (d,) on the CPU, of length 1.
        """

    def text_fits(self, text: str) -> bool:
        """Whether `text` is embedded whole; False when its end is cut off."""


@runtime_checkable
class IdentityEncoder(Protocol):
    """Turns subjects into unit vectors that tell who they are, wherever, however lit and in whatever pose they are.

    The strings are those of :class:`FrameEncoder`; deterministic as that is.
    """

    @property
    def name(self) -> str:
        """As :attr:`FrameEncoder.name`."""

    @property
    def digest(self) -> str:
        """As :attr:`FrameEncoder.digest`."""

    @property
    def preprocessing(self) -> str:
        """What happens to a subject before the network: how it is cut out and resized."""

    def subjects(self, frames: NDArray[np.uint8], masks: NDArray[np.float32] | None) -> torch.Tensor:
        """Embed the subject of each frame.

        Args:
            frames: (T, H, W, 3), RGB, T ≥ 1.
            masks: (T, H, W) in [0, 1], 1 is the subject, as a mask track holds them; None takes whole frames.

        Returns:
            float32 (T, d) on the CPU, each row of length 1; NaN in frames whose mask is empty.
        """
