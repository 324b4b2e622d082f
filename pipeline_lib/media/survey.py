"""The first pass over a video: decodes all of it to thumbnails, counts, times, and finds damage."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.errors import MediaError
from pipeline_lib.media.child import DecodingChild, decoding_child
from pipeline_lib.media.ffmpeg_command import Scaling, decode_command
from pipeline_lib.media.header import Header
from pipeline_lib.media.limits import MediaLimits

THUMBNAIL_SIDE = 32

_TIME_BASE = re.compile(r"config in time_base: (\d+)/(\d+)")
_FRAME = re.compile(r" n: *\d+ pts: *(-?\d+|NOPTS)\b")
_INTERLACED = re.compile(r" i:[TB] ")
_CHANGED = re.compile(r"Reconfiguring filter graph|Changing video frame properties")


@dataclass(frozen=True)
class Survey:
    """What decoding showed.

    Attributes:
        header: what the file claims.
        times: (frames,) seconds since the first frame, never falling.
        thumbnails: (frames, 32, 32, 3) uint8, the whole picture squeezed to a square.
        damage: number of error messages of the decoder.
        timed: whether the file has time stamps; without them frames are taken as evenly spaced.
        interlaced: whether any frame was made of two fields.
        size_changes: how often the picture changed its size or format.
    """

    header: Header
    times: NDArray[np.float64]
    thumbnails: NDArray[np.uint8]
    damage: int
    timed: bool
    interlaced: bool
    size_changes: int

    @property
    def frame_seconds(self) -> float:
        """Median time between frames."""
        if len(self.times) > 1 and self.times[-1] > 0:
            return float(np.median(np.diff(self.times))) or float(self.times[-1] / (len(self.times) - 1))
        return 1 / self.header.frames_per_second if self.header.frames_per_second else 0.0

    @property
    def seconds(self) -> float:
        """From the first frame to the end of the last one."""
        return float(self.times[-1]) + self.frame_seconds

    @property
    def variable_rate(self) -> bool:
        """Whether more than 2 % of the frames are off their regular time by more than a tenth."""
        if len(self.times) < 3:
            return False
        steps = np.diff(self.times)
        # Two milliseconds: some containers round time stamps to whole milliseconds.
        off = np.abs(steps - np.median(steps)) > max(0.1 * float(np.median(steps)), 0.002)
        return bool(off.mean() > 0.02)


def survey(path: Path, header: Header, limits: MediaLimits) -> Survey:
    """Decodes the whole file once.

    Args:
        path: of the file.
        header: of :func:`pipeline_lib.media.header.read_header`.
        limits: caps on the decoder.

    Returns:
        Times and thumbnails of all frames, and what the decoder complained of.

    Raises:
        MediaError: nothing can be decoded, or it is more than the caps allow.
    """
    side = THUMBNAIL_SIDE
    scaling = Scaling(height=side, width=side, crop_height=side, crop_width=side)
    command = decode_command(path, header, scaling, limits.frame_pixels)
    with decoding_child(command, limits.child, path.name, _tells) as child:
        pieces = list(_frames(child, scaling.frame_bytes, path, limits))
        _finish(child, bool(pieces))
    if not pieces:
        raise MediaError(
            f"{path.name} holds no frame that can be decoded",
            got=_first_error(child.messages),
            fix="it is damaged or cut short: copy or export it again",
        )
    thumbnails = np.frombuffer(b"".join(pieces), np.uint8).reshape(len(pieces), side, side, 3)
    stamps = _stamps(child.messages, len(pieces))
    times = np.arange(len(pieces)) / (header.frames_per_second or 25.0) if stamps is None else stamps
    if times[-1] > limits.seconds:
        raise _too_much(path, f"{times[-1]:.0f} s", f"at most {limits.seconds:.0f} s")
    return Survey(
        header=header,
        times=times,
        thumbnails=thumbnails,
        timed=stamps is not None,
        damage=sum(is_error(line) for line in child.messages),
        interlaced=any(_INTERLACED.search(line) for line in child.messages),
        size_changes=sum(bool(_CHANGED.search(line)) for line in child.messages),
    )


def _frames(child: DecodingChild, frame_bytes: int, path: Path, limits: MediaLimits) -> Iterator[bytes]:
    count = 0
    while len(piece := child.read(frame_bytes)) == frame_bytes:
        count += 1
        if count > limits.decoded_frames:
            raise _too_much(path, f"more than {limits.decoded_frames} frames", f"at most {limits.decoded_frames}")
        yield piece


def _finish(child: DecodingChild, any_frames: bool) -> None:
    """A decoder that gave frames and then failed on damage has still given frames; killed is killed."""
    try:
        child.finish()
    except MediaError as error:
        if "failed (" not in error.got:
            raise
        if any_frames:
            child.messages.append(f"[error] {error.got}")


def _tells(line: str) -> bool:
    """Of all that the decoder says, what is read below: some streams come with many lines per frame."""
    return is_error(line) or any(pattern.search(line) for pattern in (_FRAME, _TIME_BASE, _CHANGED))


def _stamps(messages: list[str], count: int) -> NDArray[np.float64] | None:
    """Seconds of each frame since the first; None where any time stamp is missing."""
    base, stamps = 0.0, []
    for line in messages:
        if found := _TIME_BASE.search(line):
            base = int(found.group(1)) / int(found.group(2))
        elif found := _FRAME.search(line):
            stamps.append(np.nan if found.group(1) == "NOPTS" else int(found.group(1)) * base)
    times = np.asarray(stamps[:count], np.float64)
    if len(times) < count or base == 0.0 or np.isnan(times).any():
        return None
    return np.maximum.accumulate(times - times[0])


def _too_much(path: Path, got: str, expected: str) -> MediaError:
    fix = "cut the part that shows the subject into a file of its own"
    return MediaError(f"{path.name} is too long", got=got, expected=expected, fix=fix)


def is_error(line: str) -> bool:
    """Whether the decoder's line reports damage."""
    return "[error]" in line or "[fatal]" in line


def _first_error(messages: list[str]) -> str:
    return next((line.strip()[:200] for line in messages if is_error(line)), "")
