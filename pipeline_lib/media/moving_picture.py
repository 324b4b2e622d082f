"""Small moving pictures that pages and messages can hold in themselves: WebP, which browsers play without a player."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_QUALITY = 60


def moving_picture(
    frames: NDArray[np.uint8], frames_per_second: float, *, height: int = 96, most_frames: int = 12
) -> str:
    """A clip as a `data:` address of an endless animation.

    Args:
        frames: (frames, height, width, 3).
        frames_per_second: of the clip; the animation lasts as long as the clip.
        height: of the animation, pixels.
        most_frames: of a longer clip, as many spread evenly over it.

    Returns:
        `data:image/webp;base64,…`, some ten thousand characters.
    """
    count = min(len(frames), most_frames)
    chosen = frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
    width = max(1, round(chosen.shape[2] * height / chosen.shape[1]))
    pictures = [Image.fromarray(frame).resize((width, height)) for frame in chosen]
    milliseconds = round(1000 * len(frames) / frames_per_second / count)
    written = io.BytesIO()
    first, *others = pictures
    first.save(
        written, "WEBP", save_all=True, append_images=others, duration=milliseconds, loop=0, quality=_QUALITY, method=6
    )
    return f"data:image/webp;base64,{base64.b64encode(written.getvalue()).decode()}"
