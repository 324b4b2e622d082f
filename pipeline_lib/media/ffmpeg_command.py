"""Finds the ffmpeg binary and writes its command lines, through ffmpeg-python."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ffmpeg
import imageio_ffmpeg

from pipeline_lib.errors import ResourceError
from pipeline_lib.media.header import ALLOWED_FORMATS, Header

_THREADS = 4
_RACING_DECODERS = frozenset({"theora", "vp3", "vp4"})
"""On several threads ffmpeg's one decoder of these gives other pictures from one reading to the next."""
_MATRIX_UNSPECIFIED = 2


@dataclass(frozen=True)
class FfmpegBinary:
    """A binary and its major version; a build without a release number counts as a late one."""

    path: str
    major: int

    @property
    def every_frame(self) -> dict[str, str]:
        """The option that keeps every frame as it is timed; its name changed in ffmpeg 5.1."""
        return {"fps_mode": "passthrough"} if self.major > 5 else {"vsync": "0"}


@functools.cache
def ffmpeg_binary() -> FfmpegBinary:
    """The system's ffmpeg, or the one in imageio-ffmpeg's wheel.

    Returns:
        Its path and major version; 99 where its banner names none, as a build from git.

    Raises:
        ResourceError: there is none that runs.
    """
    try:
        path = shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()
        banner = subprocess.run([path, "-version"], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise ResourceError(f"no ffmpeg that runs ({error}); install ffmpeg or the package imageio-ffmpeg") from error
    found = re.search(r"ffmpeg version n?(\d+)\.", banner)
    return FfmpegBinary(path, int(found.group(1)) if found else 99)


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """The picture that the decoder hands over: resized, cut out of the middle, in a pixel format.

    Attributes:
        height: of the resized picture, before the cut.
        width: of the resized picture, before the cut.
        crop_height: of the cut.
        crop_width: of the cut.
        pixel_format: "rgb24", "rgba" or "rgb48le".
        smooth: area averaging, for a smaller picture; else Lanczos, for a larger one.
        deinterlace: makes whole pictures of fields, where a frame has them.
    """

    height: int
    width: int
    crop_height: int
    crop_width: int
    pixel_format: str = "rgb24"
    smooth: bool = True
    deinterlace: bool = False

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame as it comes out of the pipe."""
        return self.crop_height * self.crop_width * {"rgb24": 3, "rgba": 4, "rgb48le": 6}[self.pixel_format]


def decode_command(path: Path, header: Header, scaling: Scaling, max_pixels: int) -> list[str]:
    """The command that writes every frame, upright and scaled, as raw video to standard output.

    Frames are scaled inside ffmpeg, one at a time: no full-size clip is ever held. Its messages carry
    one `showinfo` line per frame, with the frame's time stamp.

    Args:
        path: of the video.
        header: which stream, and how it is coded.
        scaling: what to hand over.
        max_pixels: of a frame; larger ones are an error of the decoder.

    Returns:
        Program and arguments.
    """
    binary = ffmpeg_binary()
    source = ffmpeg.input(
        f"file:{path.absolute()}",
        protocol_whitelist="file,pipe",
        format_whitelist=ALLOWED_FORMATS,
        threads=1 if header.codec in _RACING_DECODERS else _THREADS,
        # A stream may grow beyond what its header says.
        max_pixels=max_pixels,
    )
    picture = _scaled(source[str(header.stream)], header, scaling)
    if (scaling.crop_height, scaling.crop_width) != (scaling.height, scaling.width):
        picture = picture.filter("crop", scaling.crop_width, scaling.crop_height)
    # showinfo only after the scaling: it sums up every pixel it sees.
    picture = picture.filter("format", scaling.pixel_format).filter("showinfo")
    output = picture.output("pipe:1", format="rawvideo", pix_fmt=scaling.pixel_format, **binary.every_frame)
    command: list[str] = output.global_args(
        "-nostdin", "-hide_banner", "-loglevel", "level+info", "-nostats", "-filter_complex_threads", "2"
    ).compile(cmd=binary.path)
    return command


def _scaled(picture: Any, header: Header, scaling: Scaling) -> Any:
    if header.has_alpha:
        # Transparent pixels may hold any colour: without this they would bleed into their neighbours.
        picture = picture.filter("format", "gbrap").filter("premultiply", inplace=1)
    options: dict[str, Any] = {"flags": ("area" if scaling.smooth else "lanczos") + "+accurate_rnd+full_chroma_int"}
    if header.matrix == _MATRIX_UNSPECIFIED and not header.has_alpha and not header.pixel_format.startswith("gbr"):
        # The custom of players: untagged high definition is BT.709, the rest BT.601.
        options["in_color_matrix"] = "bt709" if header.height >= 720 else "bt601"
    if scaling.deinterlace:
        picture = picture.filter("yadif", deint=1)
    return picture.filter("scale", scaling.width, scaling.height, **options)
