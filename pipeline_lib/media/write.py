"""Writes the library's own videos: H.264 in mp4, playable everywhere."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np
from numpy.typing import NDArray

from pipeline_lib.errors import MediaError, ResourceError
from pipeline_lib.media.ffmpeg_command import ffmpeg_binary
from pipeline_lib.media.whole import read_video

__all__ = ["read_video", "write_video"]

_CONSTANT_RATE_FACTOR = 12


def write_video(frames: NDArray[np.uint8], path: Path, frames_per_second: float, *, scale: int = 1) -> Path:
    """Writes an mp4: H.264, yuv420p, BT.709, index in front.

    The same frames give the same bytes. Odd sides are made even by repeating the last row or column. The
    file appears under its name only when it is whole.

    Args:
        frames: (frames, height, width, 3) uint8 RGB.
        path: of the file; its folder is made.
        frames_per_second: > 0.
        scale: whole factor by which tiny frames are enlarged for viewing, without smoothing.

    Returns:
        The path.

    Raises:
        MediaError: the frames have no pixels, or the wrong shape.
        ResourceError: ffmpeg failed: disk full, or no H.264 encoder.
    """
    path = Path(path)
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape or frames.dtype != np.uint8:
        raise MediaError(
            f"{path.name} cannot be written", got=f"{frames.dtype} {frames.shape}", expected="uint8 (T, H, W, 3)"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    command = _encode_command(temporary, _encoded_size(frames, scale), frames_per_second)
    try:
        _encode(command, frames, scale)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _encoded_size(frames: NDArray[np.uint8], scale: int) -> tuple[int, int]:
    height, width = frames.shape[1] * scale, frames.shape[2] * scale
    return height + height % 2, width + width % 2


def _encode_command(path: Path, size: tuple[int, int], frames_per_second: float) -> list[str]:
    binary, (height, width) = ffmpeg_binary(), size
    source = ffmpeg.input(
        "pipe:0", format="rawvideo", pix_fmt="rgb24", video_size=(width, height), framerate=frames_per_second
    )
    picture = source.filter("scale", out_color_matrix="bt709", out_range="tv", flags="accurate_rnd+full_chroma_int")
    options: dict[str, Any] = {
        "format": "mp4", "vcodec": "libx264", "pix_fmt": "yuv420p", "crf": _CONSTANT_RATE_FACTOR,
        "preset": "medium", "movflags": "+faststart", "colorspace": "bt709", "color_primaries": "bt709",
        "color_trc": "bt709", "color_range": "tv", "fflags": "+bitexact", "flags:v": "+bitexact",
        # The encoder's output depends on the number of its threads.
        "threads": 1 if height * width <= 256 * 256 else 4,
    }  # fmt: skip
    output = picture.output(f"file:{path.absolute()}", **options)
    command: list[str] = output.global_args("-y", "-hide_banner", "-loglevel", "error").compile(cmd=binary.path)
    return command


def _encode(command: list[str], frames: NDArray[np.uint8], scale: int) -> None:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stderr is not None
    try:
        for frame in frames:
            process.stdin.write(_even(frame, scale).tobytes())
        process.stdin.close()
        message = process.stderr.read().decode("utf-8", "replace").strip()
    except BrokenPipeError:
        message = process.stderr.read().decode("utf-8", "replace").strip() or "the encoder ended early"
    finally:
        process.stderr.close()
        if process.poll() is None and not process.stdin.closed:
            process.kill()
        return_code = process.wait()
    if return_code:
        raise ResourceError(f"ffmpeg could not write {command[-2]}: {message or f'exit code {return_code}'}")


def _even(frame: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    large = frame.repeat(scale, axis=0).repeat(scale, axis=1)
    odd_height, odd_width = large.shape[0] % 2, large.shape[1] % 2
    return np.pad(large, ((0, odd_height), (0, odd_width), (0, 0)), mode="edge")
