"""The seam of captioners."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.records import Caption


class Captioner(Protocol):
    """Says what is seen in a clip, in the parts of a :class:`~pipeline_lib.records.Caption`."""

    @property
    def name(self) -> str:
        """What wrote the caption, for provenance."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about the last caption; usually nothing."""

    def caption(self, frames: NDArray[np.uint8], subject: str, *, unordered: bool = False) -> Caption:
        """Captions one clip, or one image.

        The same frames and words give the same caption.

        Args:
            frames: (frames, height, width, 3) uint8 RGB; one frame is an image, which has no motion.
            subject: the user's bare noun for what the clip shows ("dog").
            unordered: the frames are a set of pictures of one subject, not a clip: there is no motion,
                and what differs between the pictures is left out.

        Returns:
            A caption whose `class_noun` is the user's noun; no field is longer than
            :data:`~pipeline_lib.captions.fields.MAX_FIELD` characters.

        Raises:
            InputError: the noun is empty.
        """
