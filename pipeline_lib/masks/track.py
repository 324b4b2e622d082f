"""A subject's mask through a clip, and the same mask over latents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline_lib.errors import ArtifactError
from pipeline_lib.storage import replacing

_FILE = "masks.npz"
LEAST_AREA = 1e-3
"""Share of a picture: a subject that covers less of it is not seen there."""


@dataclass(frozen=True)
class MaskTrack:
    """Where the subject is in each frame.

    Attributes:
        masks: (frames, height, width) float32 in [0, 1]; 1 is the subject.
    """

    masks: NDArray[np.float32]

    def __post_init__(self) -> None:
        assert self.masks.ndim == 3
        assert self.masks.dtype == np.float32
        assert self.masks.size > 0
        assert float(self.masks.min()) >= 0.0
        assert float(self.masks.max()) <= 1.0

    @classmethod
    def everything(cls, frames: int, height: int, width: int) -> MaskTrack:
        """A mask of ones: every pixel counts as the subject."""
        return cls(np.ones((frames, height, width), np.float32))

    @property
    def area(self) -> NDArray[np.float64]:
        """Share of each frame that the subject covers, (frames,)."""
        return self.masks.reshape(len(self.masks), -1).mean(1, dtype=np.float64)

    def empty_frames(self, least: float = LEAST_AREA) -> tuple[int, ...]:
        """Indices of frames where the subject covers less than that share."""
        return tuple(int(index) for index in np.flatnonzero(self.area < least))

    def latent_mask(self, t: int, h: int, w: int) -> NDArray[np.float32]:
        """The mask over latents: averaged over area in space, the largest over time.

        The first latent frame stands for the first pixel frame; the others share out the rest evenly, as
        a causal autoencoder with temporal compression does. Without compression it is frame by frame.

        Args:
            t: latent frames; `(frames - 1) / (t - 1)` must be whole.
            h: latent height.
            w: latent width.

        Returns:
            (t, h, w) float32 in [0, 1].
        """
        frames = len(self.masks)
        assert t == 1 or (frames - 1) % (t - 1) == 0, "pixel frames do not divide into latent frames"
        small = np.stack([_area_average(mask, h, w) for mask in self.masks])
        if t == 1:
            return small.max(0, keepdims=True)
        first, rest = small[:1], small[1:].reshape(t - 1, (frames - 1) // (t - 1), h, w)
        return np.concatenate([first, rest.max(1)])

    def window(self, start: int, stop: int) -> MaskTrack:
        """The frames `[start, stop)`."""
        return MaskTrack(self.masks[start:stop])

    def save(self, folder: Path) -> Path:
        """Writes `masks.npz`, at 8 bits a pixel."""
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / _FILE) as file:
            np.savez_compressed(file, masks=np.rint(self.masks * 255).astype(np.uint8))
        return folder / _FILE

    @classmethod
    def load(cls, folder: Path) -> MaskTrack:
        """Reads what :meth:`save` wrote.

        Args:
            folder: where it was saved.

        Returns:
            The track; its masks went through 8 bits.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        try:
            with np.load(folder / _FILE, allow_pickle=False) as stored:
                masks = stored["masks"]
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise ArtifactError(f"{folder} holds no mask track that can be read: {error}") from error
        if masks.ndim != 3 or masks.dtype != np.uint8 or masks.size == 0:
            raise ArtifactError(f"{folder}: the masks ({masks.shape}, {masks.dtype}) are not a mask track")
        return cls(masks.astype(np.float32) / 255)


def _area_average(mask: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    averaged = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
    return np.clip(averaged.astype(np.float32), 0, 1)
