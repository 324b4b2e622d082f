"""Random crops of frames, enlarged to the frame's size, so that a subject is not learned at one place and size alone.

Not in the paper. All frames of a clip from a camera that stands still share one background, pixel for pixel, and an
identity basis learns it with the subject. What crops brought is logged in Set-and-Sequence's README.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from pipeline_lib.masks.track import LEAST_AREA
from pipeline_lib.seeding import generator


@dataclass(frozen=True, kw_only=True)
class CropSettings:
    """Which crops are encoded beside the whole frames.

    Attributes:
        each: crops of each frame; 0: none.
        zoom: largest magnification; each crop draws its own between 1 and this.
    """

    each: int = 0
    zoom: float = 1.0


@dataclass(frozen=True)
class Crop:
    """A rectangle of pixels.

    Attributes:
        top: first row.
        left: first column.
        height: rows.
        width: columns.
    """

    top: int
    left: int
    height: int
    width: int

    def frame(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """This part of a frame (h, w, 3), at the frame's own size."""
        enlarged = cv2.resize(self._cut(frame), _size(frame), interpolation=cv2.INTER_CUBIC)
        return np.asarray(enlarged, np.uint8)

    def mask(self, mask: NDArray[np.float32]) -> NDArray[np.float32]:
        """This part of a mask (h, w), at the mask's own size."""
        enlarged = cv2.resize(self._cut(mask), _size(mask), interpolation=cv2.INTER_LINEAR)
        return np.asarray(enlarged, np.float32)

    def shows(self, mask: NDArray[np.float32]) -> bool:
        """Whether the subject is in this part of the frame."""
        return float(self._cut(mask).mean()) >= LEAST_AREA

    def _cut(self, picture: NDArray[np.generic]) -> NDArray[np.generic]:
        return picture[self.top : self.top + self.height, self.left : self.left + self.width]


def draw_crops(settings: CropSettings, size: tuple[int, int], seed: int, frame: int) -> Iterator[Crop]:
    """Crops of one frame, of the frame's own proportions.

    Args:
        settings: how many, how large.
        size: height and width of the frame, in pixels.
        seed: of the run.
        frame: index of the frame in its set, the counter of the draws.

    Yields:
        `settings.each` crops.
    """
    height, width = size
    for number in range(settings.each):
        share, down, right = torch.rand(3, generator=generator(seed, "crop", frame, number)).tolist()
        scale = 1.0 + (settings.zoom - 1.0) * share
        rows, columns = round(height / scale), round(width / scale)
        yield Crop(round(down * (height - rows)), round(right * (width - columns)), rows, columns)


def _size(picture: NDArray[np.generic]) -> tuple[int, int]:
    return picture.shape[1], picture.shape[0]
