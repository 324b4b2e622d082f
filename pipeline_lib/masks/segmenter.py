"""The seam of segmenters."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.masks.track import MaskTrack


class Segmenter(Protocol):
    """Finds the subject in every frame."""

    @property
    def name(self) -> str:
        """What made the masks, for provenance."""

    def segment(self, frames: NDArray[np.uint8], noun: str) -> MaskTrack:
        """Masks of what the noun names.

        The same frames and noun give the same masks. Frames without the subject get an empty mask.

        Args:
            frames: (frames, height, width, 3) uint8 RGB.
            noun: bare noun of the subject ("dog").

        Returns:
            As many masks as frames, of their size.

        Raises:
            InputError: the subject is found in no frame.
        """
