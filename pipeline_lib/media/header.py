"""What a media file claims to be: read by PyAV in a limited child, and used only to plan the decoding."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.errors import MediaError
from pipeline_lib.media.child import run_to_end
from pipeline_lib.media.limits import MediaLimits

ALLOWED_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,apng,mpeg,mpegts,mpegvideo,m4v,h264,hevc,asf,flv,ogg,mxf,"
    "yuv4mpegpipe,ivf,obu,av1,dv,nut,wtv,swf,rm,webp_anim"
)
"""Demuxers that may open a stranger's file: containers of video, none that opens other files or text."""

_PQ, _HLG = 16, 18
_CHILD = Path(__file__).with_name("header_child.py")


@dataclass(frozen=True, kw_only=True)
class Header:
    """The header's claims; sizes as stored, before rotation.

    Attributes:
        container: demuxer's name.
        stream: index of the video stream to decode: the largest one.
        num_video_streams: how many there are.
        codec: decoder's name.
        width: pixels as stored.
        height: pixels as stored.
        sample_aspect_ratio: width of a pixel over its height.
        frames_per_second: average rate, 0 where unknown.
        seconds: duration, 0 where unknown.
        pixel_format: ffmpeg's name.
        bit_depth: bits of a component.
        has_alpha: whether frames carry transparency.
        transfer: transfer characteristics, ITU-T H.273 table 3; 2 is unspecified.
        matrix: matrix coefficients, ITU-T H.273 table 4; 2 is unspecified.
        rotation: degrees anticlockwise that a player turns the picture by.
    """

    container: str
    stream: int
    num_video_streams: int
    codec: str
    width: int
    height: int
    sample_aspect_ratio: float
    frames_per_second: float
    seconds: float
    pixel_format: str
    bit_depth: int
    has_alpha: bool
    transfer: int
    matrix: int
    rotation: int

    @property
    def hdr(self) -> bool:
        """Whether the transfer curve is one of the two of high dynamic range: PQ or HLG."""
        return self.transfer in (_PQ, _HLG)

    @property
    def display_size(self) -> tuple[float, float]:
        """Height and width as a player shows them: square pixels, turned upright."""
        height, width = float(self.height), self.width * self.sample_aspect_ratio
        return (width, height) if self.rotation in (90, 270) else (height, width)


def read_header(path: Path, limits: MediaLimits) -> Header:
    """The header of a video file.

    Args:
        path: of the file; untrusted, opened in a limited child.
        limits: caps on the child and on what the header may announce.

    Returns:
        What the container says, before a frame is decoded.

    Raises:
        MediaError: not a container that we read, no video in it, or larger than the caps.
    """
    command = [sys.executable, "-I", str(_CHILD), f"file:{path.absolute()}", ALLOWED_FORMATS]
    answer = json.loads(run_to_end(command, limits.child, path.name))
    if answer.get("error") == "open":
        raise MediaError(
            f"{path.name} cannot be opened as video",
            got=f"{answer['detail']} (cut short, damaged, or not an allowed container)",
            expected="a complete mp4, mov, mkv, webm, avi, gif, mpeg, ts, wmv, flv or ogg file",
            fix="copy or export it again; a recording that was cut off may be repaired by re-muxing it",
        )
    if answer.get("error") == "no video":
        raise MediaError(f"{path.name} has no video stream", got=answer["detail"], fix="give a file with pictures")
    header = Header(**answer)
    _check_caps(path, header, limits)
    return header


def _check_caps(path: Path, header: Header, limits: MediaLimits) -> None:
    if header.width * header.height > limits.frame_pixels:
        raise MediaError(
            f"{path.name} has too large frames",
            got=f"{header.width}x{header.height}",
            expected=f"at most {limits.frame_pixels:,} pixels",
            fix="scale it down first",
        )
    if header.width * header.height == 0:
        raise MediaError(f"{path.name} has no picture size", fix="it is damaged: copy or export it again")
    if header.seconds > limits.seconds:
        raise MediaError(
            f"{path.name} is too long",
            got=f"{header.seconds:.0f} s",
            expected=f"at most {limits.seconds:.0f} s",
            fix="cut the part that shows the subject into a file of its own",
        )
