"""Clips made for the tests: every odd kind of file, small, from the bundled ffmpeg."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from pipeline_lib.media.clip import Clip
from pipeline_lib.media.read import read_clips
from pipeline_lib.records import FrameRules

POCKET = FrameRules(height=64, width=64, num_frames=13, frames_per_second=8, frame_multiple=1)


def ffmpeg(*arguments: str | Path) -> None:
    """Runs the bundled binary: its options are known, a system's may be older."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-hide_banner", "-loglevel", "error", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def square_clip(
    count: int, height: int = 64, width: int = 64, colour: tuple[int, int, int] = (200, 40, 40)
) -> NDArray[np.uint8]:
    """A square that slides to the right over a shaded ground."""
    ramp = np.linspace(40, 200, height, dtype=np.uint8)[:, None, None]
    frames = np.broadcast_to(ramp, (count, height, width, 3)).copy()
    side = height // 3
    for index in range(count):
        left = 2 + round(index / max(1, count - 1) * (width - side - 4))
        frames[index, side : 2 * side, left : left + side] = colour
    return frames


def numbered_clip(count: int, height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    """Grey frames whose brightness is 8 x the frame's number: what was picked can be read back."""
    levels = np.arange(count, dtype=np.uint8)[:, None, None, None] * 8
    return np.broadcast_to(levels, (count, height, width, 3)).copy()


def frame_numbers(frames: NDArray[np.uint8]) -> list[int]:
    """The numbers of frames of a :func:`numbered_clip`."""
    return [round(float(frame.mean()) / 8) for frame in frames]


def read_one(path: Path, rules: FrameRules = POCKET, **options: int) -> Clip:
    (clip,) = read_clips([path], rules, **options)
    return clip


def has_note(clip: Clip, words: str) -> bool:
    return any(words in note for note in clip.record.notes)
