"""A clip in memory: the frames that will be trained on, and the record that tells where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from pipeline_lib.errors import ArtifactError
from pipeline_lib.records import ClipRecord
from pipeline_lib.storage import replacing, write_atomic

_FRAMES, _RECORD = "frames.npy", "clip.json"


@dataclass(frozen=True)
class Clip:
    """Frames and their record.

    Attributes:
        frames: (frames, height, width, 3) uint8 RGB; an unordered set where `record.kind` is "images".
        record: sources, sizes, shots and notes.
    """

    frames: NDArray[np.uint8]
    record: ClipRecord

    def __post_init__(self) -> None:
        record = self.record
        assert self.frames.dtype == np.uint8
        assert self.frames.shape == (record.num_frames, record.height, record.width, 3)

    def save(self, folder: Path) -> None:
        """Writes `frames.npy` and `clip.json`; the record last."""
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / _FRAMES) as file:
            np.save(file, np.ascontiguousarray(self.frames), allow_pickle=False)
        write_atomic(folder / _RECORD, self.record.model_dump_json(indent=1))

    @classmethod
    def load(cls, folder: Path) -> Clip:
        """Reads what :meth:`save` wrote.

        Args:
            folder: where it was saved.

        Returns:
            The clip, frames and record checked against each other.

        Raises:
            ArtifactError: a file is missing, or the two do not fit each other.
        """
        try:
            record = ClipRecord.model_validate_json((folder / _RECORD).read_bytes())
            frames = np.load(folder / _FRAMES, allow_pickle=False)
        except (OSError, ValueError, ValidationError) as error:
            raise ArtifactError(f"{folder} holds no clip that can be read: {error}") from error
        if frames.dtype != np.uint8 or frames.shape != (record.num_frames, record.height, record.width, 3):
            raise ArtifactError(f"{folder}: the frames ({frames.shape}, {frames.dtype}) do not fit their record")
        return cls(frames, record)
