"""Reads every frame of a video as it is: no re-timing, no choice of a shot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.errors import MediaError
from pipeline_lib.media.decode import decode_frames
from pipeline_lib.media.fitting import Fit, fit_size
from pipeline_lib.media.limits import DEFAULT_LIMITS, MediaLimits
from pipeline_lib.media.source import VideoSource, open_video


def read_video(path: Path, limits: MediaLimits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """All frames of a video at its own size: for files of our own, which fit in memory.

    Args:
        path: of the video.
        limits: caps; `kept_bytes` bounds the result.

    Returns:
        (frames, height, width, 3) uint8 RGB.

    Raises:
        MediaError: it cannot be read, or would take more than the memory allowed for one clip.
    """
    with open_video(Path(path), limits) as source:
        height, width = (round(side) for side in source.seen.header.display_size)
        return _all_frames(source, Fit(height, width, height, width, 1.0), limits)


def read_fitted(path: Path, height: int, width: int, limits: MediaLimits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """All frames of a video, resized to cover a size, the centre cut out.

    Args:
        path: of the video.
        height: wanted.
        width: wanted.
        limits: caps; `kept_bytes` bounds the result.

    Returns:
        (frames, height, width, 3) uint8 RGB.

    Raises:
        MediaError: as for :func:`read_video`.
    """
    with open_video(Path(path), limits) as source:
        return _all_frames(source, fit_size(*source.seen.header.display_size, height, width), limits)


def _all_frames(source: VideoSource, fit: Fit, limits: MediaLimits) -> NDArray[np.uint8]:
    count = source.facts.num_frames
    if count * fit.height * fit.width * 3 > limits.kept_bytes:
        raise MediaError(
            f"{source.facts.name} is too large to be read whole",
            got=f"{count} frames of {fit.width}x{fit.height}",
            fix="read it as a clip, which is cut to what training needs",
        )
    frames, _ = decode_frames(source.path, source.seen, fit, np.arange(count), limits)
    return frames
