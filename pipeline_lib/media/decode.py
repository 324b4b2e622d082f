"""The second pass over a video: the chosen frames, already scaled, one at a time through a pipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.errors import MediaError
from pipeline_lib.media.child import DecodingChild, decoding_child
from pipeline_lib.media.ffmpeg_command import Scaling, decode_command
from pipeline_lib.media.fitting import Fit
from pipeline_lib.media.limits import MediaLimits
from pipeline_lib.media.survey import Survey, is_error
from pipeline_lib.media.tonemap import tone_map


def decode_frames(
    path: Path, seen: Survey, fit: Fit, picks: NDArray[np.int64], limits: MediaLimits
) -> tuple[NDArray[np.uint8], list[str]]:
    """The picked frames.

    Args:
        path: of the video.
        seen: its survey.
        fit: sizes.
        picks: (frames,) indices into the decoded frames, never falling.
        limits: caps.

    Returns:
        (frames, height, width, 3) uint8, and notes.

    Raises:
        MediaError: the decoder failed, or gave fewer frames than in the survey.
    """
    header = seen.header
    pixel_format = "rgb48le" if header.hdr else "rgba" if header.has_alpha else "rgb24"
    scaling = fit.scaling(pixel_format, deinterlace=seen.interlaced)
    frames = np.empty((len(picks), fit.height, fit.width, 3), np.uint8)
    transparent = False
    command = decode_command(path, header, scaling, limits.frame_pixels)
    with decoding_child(command, limits.child, path.name, is_error) as child:
        position = 0
        for index in range(int(picks[-1]) + 1):
            raw = _next_frame(child, scaling, index, path)
            if index != picks[position]:
                continue
            frame, see_through = _as_rgb(raw, scaling, header.transfer)
            transparent |= see_through
            while position < len(picks) and picks[position] == index:
                frames[position] = frame
                position += 1
        child.stop()
    return frames, ["transparent parts put on white"] if transparent else []


def _next_frame(child: DecodingChild, scaling: Scaling, index: int, path: Path) -> bytes:
    raw = child.read(scaling.frame_bytes)
    if len(raw) < scaling.frame_bytes:
        child.finish()
        raise MediaError(
            f"{path.name} decodes differently each time",
            got=f"the end after {index} frames",
            fix="it is damaged or was changed meanwhile: re-encode it as H.264 mp4",
        )
    return raw


def _as_rgb(raw: bytes, scaling: Scaling, transfer: int) -> tuple[NDArray[np.uint8], bool]:
    shape = (scaling.crop_height, scaling.crop_width)
    if scaling.pixel_format == "rgb48le":
        return tone_map(np.frombuffer(raw, "<u2").reshape(*shape, 3), transfer), False
    if scaling.pixel_format == "rgb24":
        return np.frombuffer(raw, np.uint8).reshape(*shape, 3), False
    layered = np.frombuffer(raw, np.uint8).reshape(*shape, 4)
    # The decoder has multiplied colour by opacity; white fills what is missing.
    missing = 255 - layered[..., 3:]
    return np.minimum(layered[..., :3].astype(np.uint16) + missing, 255).astype(np.uint8), bool(missing.any())
