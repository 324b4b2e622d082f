"""Animations that a page holds in itself."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from pipeline_lib.media.moving_picture import moving_picture


def decoded(address: str) -> Image.Image:
    kind, _, content = address.partition(",")
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_it_moves_as_long_as_the_clip_and_has_its_shape() -> None:
    frames = np.zeros((40, 32, 64, 3), np.uint8)
    for index in range(40):
        frames[index, :, index : index + 16] = (255, 0, 0)  # a red bar that walks
    picture = decoded(moving_picture(frames, 16.0, height=96, most_frames=10))
    assert (picture.size, picture.n_frames) == ((192, 96), 10)
    lefts, seconds = [], 0.0
    for index in range(picture.n_frames):
        picture.seek(index)
        lefts.append(int((np.asarray(picture.convert("RGB"))[48, :, 0] > 128).argmax()))
        seconds += picture.info["duration"] / 1000
    assert seconds == 2.5
    assert lefts == sorted(lefts)
    assert lefts[0] <= 3
    assert lefts[-1] >= 3 * 39 - 3


def test_a_short_clip_keeps_its_frames() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    assert decoded(moving_picture(frames, 8.0)).n_frames == 3
    assert decoded(moving_picture(frames[:1], 8.0)).n_frames == 1
