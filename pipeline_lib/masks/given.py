"""The user's own masks: a mask video, or a folder of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.errors import MediaError
from pipeline_lib.masks.track import MaskTrack
from pipeline_lib.media.collect import collect
from pipeline_lib.media.read import read_images
from pipeline_lib.media.whole import read_fitted
from pipeline_lib.records import FrameRules


class GivenMasks:
    """Masks that the user gives: white where the subject is.

    One mask is used for every frame; otherwise there must be as many masks as frames of the clip as it
    is trained on (`mannerism preview` shows those), in order of their file names. They are fitted like
    the clip: resized to cover, centre cut out.

    Args:
        source: a mask video, an image, or a folder of images.
    """

    name = "given"

    def __init__(self, source: Path) -> None:
        self._source = Path(source)

    def segment(self, frames: NDArray[np.uint8], noun: str) -> MaskTrack:  # noqa: ARG002
        """See :class:`~pipeline_lib.masks.segmenter.Segmenter`."""
        count, height, width = frames.shape[:3]
        masks = self._pictures(height, width).astype(np.float32).mean(-1) / 255
        if len(masks) == 1:
            masks = np.repeat(masks, count, axis=0)
        if len(masks) != count:
            raise MediaError(
                f"{self._source.name} does not fit the clip",
                got=f"{len(masks)} masks",
                expected=f"1 or {count}, one for each frame that is trained on",
                fix="export masks of the previewed frames",
            )
        if float(masks.max()) < 0.5:
            raise MediaError(f"{self._source.name} is empty in every frame", fix="paint the subject white")
        return MaskTrack(np.ascontiguousarray(masks, np.float32))

    def _pictures(self, height: int, width: int) -> NDArray[np.uint8]:
        files = collect(self._source)
        if (files.clips and files.images) or len(files.clips) > 1:
            raise MediaError(
                f"{self._source.name} holds more than one set of masks",
                got=f"{len(files.clips)} videos and {len(files.images)} images",
                fix="give one mask video, or images only",
            )
        if files.clips:
            return read_fitted(files.clips[0], height, width)
        rules = FrameRules(height=height, width=width, num_frames=1, frames_per_second=1)
        return read_images(files.images, rules).frames
