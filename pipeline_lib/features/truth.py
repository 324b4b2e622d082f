"""The truth seam: what is known of a concept beyond its clip. The contract stands here once."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.records import Prompt, Score


class OtherClip(NamedTuple):
    """A clip of another concept, (T, H, W, 3), RGB, and what it scores by the truth about this one."""

    frames: NDArray[np.uint8]
    scores: list[Score]


@runtime_checkable
class TruthReader(Protocol):
    """Reads samples of one concept against what is true of it: who it is, how it moves, what its prompts ask for.

    Deterministic. Every score names who read and carries the digest of the reader's weights. A prompt of kind
    `reconstruction` asks for the reference clip; of other prompts a reader knows those that it has the truth for,
    and scores all others with None and that reason.
    """

    def score(self, frames: NDArray[np.uint8], prompt: Prompt) -> list[Score]:
        """Score one sample.

        Args:
            frames: (T, H, W, 3), RGB.
            prompt: what was asked for.

        Returns:
            `identity_accuracy`, `motion_fidelity` and `edit_accuracy`, with None and a reason where the prompt or
            the frames have no such score.
        """

    def wanted(self, prompt: Prompt) -> NDArray[np.uint8] | None:
        """The clip that an edit prompt asks for; after the autoencoder it is the ceiling.

        Args:
            prompt: what was asked for.

        Returns:
            (T, H, W, 3), RGB; None for a reconstruction, whose ceiling is the reference, and for unknown prompts.
        """

    def chance(self, prompt: Prompt) -> list[OtherClip]:
        """Clips of other concepts under a prompt: what they score is chance.

        Args:
            prompt: what was asked for.

        Returns:
            The clips, with scores as :meth:`score` gives them; none for unknown prompts.
        """
