"""What the judge reads from a clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Word:
    """One word that was read.

    Attributes:
        word: a word of the vocabulary.
        probability: the judge's probability for it, in [0, 1].
    """

    word: str
    probability: float


@dataclass(frozen=True)
class SubjectReading:
    """One subject of a clip.

    Attributes:
        words: per attribute of ``truth_table.SUBJECT_WORDS``, over all frames where it was found.
        motion: which motion, or None when fewer than five frames, or half of the clip, show it.
        track: shape (T, 5): centre x and y in pixels, log of the half height in pixels, clockwise
            angle in radians (in (-π, π], not unwrapped), log of height over width against rest; NaN
            in frames where it was not found.
        mask: shape (T, 64, 64), bool; empty in frames where it was not found.
        presence: probability of there being a subject, mean over its frames.
    """

    words: dict[str, Word]
    motion: Word | None
    track: Array
    mask: npt.NDArray[np.bool_]
    presence: float

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """Frames in which the subject was found, shape (T,)."""
        return ~np.isnan(self.track[:, 0])


@dataclass(frozen=True)
class Reading:
    """Everything the judge says of one clip.

    Attributes:
        subjects: from left to right; none when the judge abstains.
        background: the background.
        light: the light.
        camera: the camera's move, or None when the clip has fewer than four frames.
        daylight: the frames with the read light divided out, RGB in [0, 1], shape (T, 3, 64, 64).
    """

    subjects: tuple[SubjectReading, ...]
    background: Word
    light: Word
    camera: Word | None
    daylight: Tensor

    @property
    def binding(self) -> tuple[tuple[str, str], ...]:
        """(shape, colour) per subject, from left to right."""
        return tuple((one.words["shape"].word, one.words["colour"].word) for one in self.subjects)

    @property
    def main(self) -> SubjectReading | None:
        """The subject found in most frames and most surely; None when the judge abstains."""
        if not self.subjects:
            return None
        return max(self.subjects, key=lambda one: (int(one.found.sum()), one.presence))
