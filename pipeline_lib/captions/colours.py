"""Colours by name."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

NAMED_COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 32, 32), "orange": (250, 134, 18), "yellow": (246, 222, 42), "green": (40, 168, 58),
    "cyan": (54, 220, 226), "blue": (38, 74, 232), "purple": (132, 42, 182), "pink": (252, 142, 196),
    "brown": (116, 70, 32), "white": (244, 244, 244), "grey": (128, 128, 128), "black": (18, 18, 18),
}  # fmt: skip
"""What each name looks like, sRGB."""

NAMES = tuple(NAMED_COLOURS)


def to_lab(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """CIE L*a*b* of sRGB pixels (..., 3): distances in it are differences as seen."""
    flat = np.ascontiguousarray(pixels.reshape(1, -1, 3)).astype(np.float32) / 255
    lab: NDArray[np.float32] = cv2.cvtColor(flat, cv2.COLOR_RGB2LAB).reshape(pixels.shape)
    return lab


def name_shares(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Share of the pixels (n, 3) nearest to each of :data:`NAMES`; zeros where there are none."""
    if len(pixels) == 0:
        return np.zeros(len(NAMES))
    centres = to_lab(np.array(list(NAMED_COLOURS.values()), np.uint8)[None])[0]
    # Lightness counts half: shade changes it within one colour.
    weight = np.array([0.5, 1, 1], np.float32)
    distance = np.linalg.norm((to_lab(pixels)[:, None] - centres) * weight, axis=-1)
    return np.bincount(distance.argmin(1), minlength=len(NAMES)) / len(pixels)


def say_colours(shares: Sequence[float] | NDArray[np.float64], most: int = 2, least: float = 0.22) -> str:
    """The names of the largest shares, joined by "and"; the largest always."""
    order = np.argsort(-np.asarray(shares), kind="stable")[:most]
    said = [NAMES[index] for position, index in enumerate(order) if position == 0 or shares[index] >= least]
    return " and ".join(said)
