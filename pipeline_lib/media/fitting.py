"""Fits a picture to a base's size: shorter side to size, centre cut out; and says what was lost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline_lib.media.ffmpeg_command import Scaling

_CROP_WORTH_TELLING = 0.005


@dataclass(frozen=True)
class Fit:
    """Where a source's picture goes.

    Attributes:
        scaled_height: of the whole picture after resizing.
        scaled_width: of the whole picture after resizing.
        height: of the centre that is kept.
        width: of the centre that is kept.
        factor: the resizing, > 1 enlarges.
    """

    scaled_height: int
    scaled_width: int
    height: int
    width: int
    factor: float

    def scaling(self, pixel_format: str = "rgb24", *, deinterlace: bool = False) -> Scaling:
        """For the decoder."""
        return Scaling(
            height=self.scaled_height,
            width=self.scaled_width,
            crop_height=self.height,
            crop_width=self.width,
            pixel_format=pixel_format,
            smooth=self.factor <= 1,
            deinterlace=deinterlace,
        )

    def notes(self, source_height: float, source_width: float) -> list[str]:
        """What was cropped and resized, in plain words."""
        told = []
        lost_width = 1 - self.width / self.scaled_width
        lost_height = 1 - self.height / self.scaled_height
        if lost_width > _CROP_WORTH_TELLING:
            told.append(f"cropped to the centre: {lost_width:.0%} of the width left out")
        if lost_height > _CROP_WORTH_TELLING:
            told.append(f"cropped to the centre: {lost_height:.0%} of the height left out")
        if self.factor != 1:
            size = f"{source_width:.0f}x{source_height:.0f} to {self.scaled_width}x{self.scaled_height}"
            detail = "" if self.factor < 1 else f": the source is {self.factor:.2g} times smaller than the base's size"
            told.append(f"{'reduced' if self.factor < 1 else 'enlarged'} from {size}{detail}")
        return told


def fit_size(source_height: float, source_width: float, height: int, width: int) -> Fit:
    """Resizes so that the picture just covers `height` x `width`, keeping its shape.

    Args:
        source_height: as shown, in square pixels.
        source_width: as shown, in square pixels.
        height: wanted.
        width: wanted.

    Returns:
        The sizes before and after the centre is cut out.
    """
    factor = max(height / source_height, width / source_width)
    return Fit(
        scaled_height=max(height, math.floor(source_height * factor + 0.5)),
        scaled_width=max(width, math.floor(source_width * factor + 0.5)),
        height=height,
        width=width,
        factor=factor,
    )
