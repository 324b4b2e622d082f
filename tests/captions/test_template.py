"""The template captioner says what was rendered: colours, light, motion and camera of known clips."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline_lib.captions.template import TemplateCaptioner
from pipeline_lib.errors import InputError
from pipeline_lib.records import Caption

COUNT = 17
TIME = np.linspace(0, 1, COUNT)
RED, BLUE = (214, 32, 32), (38, 74, 232)


def ground(colour: tuple[int, int, int], size: int = 64) -> NDArray[np.float64]:
    """A wall of one colour with enough texture that a moving camera can be seen."""
    texture = np.random.default_rng(0).normal(0, 10, (size // 4, size // 4, 1)).repeat(4, 0).repeat(4, 1)
    return np.clip(np.array(colour) + texture, 0, 255)


def moving_disc(
    x: NDArray[np.float64], y: NDArray[np.float64], radius: NDArray[np.float64] | float = 0.16, shift: int = 0
) -> NDArray[np.uint8]:
    """A red disc, with a dark quarter, on a green wall; the wall may shift under it, in pixels per frame."""
    wall = ground((40, 168, 58), 256)
    rows, columns = (np.mgrid[0:64, 0:64] + 0.5) / 64
    frames = []
    for index, (cx, cy, r) in enumerate(zip(x, y, np.broadcast_to(radius, COUNT), strict=True)):
        left = 96 + shift * (index - COUNT // 2)
        inside = np.hypot(rows - cy, columns - cx) < r
        frames.append(np.where(inside[..., None], RED, wall[96:160, left : left + 64]))
    return np.stack(frames).astype(np.uint8)


def say(frames: NDArray[np.uint8]) -> Caption:
    return TemplateCaptioner().caption(frames, "a ball")


HALF = np.full(COUNT, 0.5)


@pytest.mark.parametrize(
    ("x", "y", "radius", "words"),
    [
        (HALF, HALF, 0.2, "standing still"),
        (0.25 + 0.5 * TIME, HALF, 0.16, "moving to the right"),
        (0.75 - 0.5 * TIME, HALF, 0.16, "moving to the left"),
        (HALF, 0.75 - 0.5 * TIME, 0.16, "moving up"),
        (HALF, 0.75 - 0.4 * np.abs(np.sin(2 * np.pi * TIME)), 0.16, "bouncing up and down"),
        (0.5 + 0.15 * np.sin(3 * np.pi * TIME), HALF, 0.16, "swaying from side to side"),
        (0.5 + 0.2 * np.sin(7 * TIME), 0.5 + 0.2 * np.cos(7 * TIME), 0.14, "moving in a circle"),
        (HALF, HALF, 0.2 + 0.07 * np.sin(12 * TIME), "growing and shrinking"),
        (0.5 + 0.03 * (np.arange(COUNT) % 2), HALF, 0.2, "shaking"),
        (0.25 + 0.5 * TIME, 0.5 + 0.14 * np.sin(14 * TIME), 0.16, "moving in a zigzag"),
    ],
)
def test_motion(x: NDArray[np.float64], y: NDArray[np.float64], radius: float, words: str) -> None:
    caption = say(moving_disc(x, y, radius))
    assert caption.motion == words
    assert caption.camera == "static camera"
    assert caption.static == "red"
    assert caption.background == "on a green background"


def test_spinning() -> None:
    rows, columns = (np.mgrid[0:64, 0:64] - 31.5) / 32
    frames = []
    for angle in 2 * np.pi * TIME:
        u, v = columns * np.cos(angle) + rows * np.sin(angle), rows * np.cos(angle) - columns * np.sin(angle)
        inside = (np.abs(u) < 0.5) & (np.abs(v) < 0.35)
        pattern = np.where((np.floor(u * 5) + np.floor(v * 5))[..., None] % 2 > 0, (255, 255, 255), BLUE)
        frames.append(np.where(inside[..., None], pattern, ground((40, 168, 58))))
    assert say(np.stack(frames).astype(np.uint8)).motion == "spinning around"


@pytest.mark.parametrize(("shift", "words"), [(2, "the camera pans right"), (-2, "the camera pans left")])
def test_camera(shift: int, words: str) -> None:
    assert say(moving_disc(HALF, HALF, 0.2, shift)).camera == words


def test_light() -> None:
    frames = moving_disc(HALF, HALF, 0.2).astype(float)
    frames[:, 28:36, 28:36] = 250
    tints = {"in daylight": (1, 1, 1), "at dusk": (1.0, 0.76, 0.6), "at night": (0.46, 0.52, 0.72)}
    for words, tint in tints.items():
        assert say((frames * tint).astype(np.uint8)).light == words


@pytest.mark.parametrize("size", [(64, 64), (90, 160), (480, 832)])
def test_sizes_agree(size: tuple[int, int]) -> None:
    import cv2

    frames = moving_disc(0.25 + 0.5 * TIME, HALF)
    large = np.stack([cv2.resize(frame, size[::-1], interpolation=cv2.INTER_CUBIC) for frame in frames])
    caption = say(large)
    assert (caption.static, caption.motion) == ("red", "moving to the right")


def test_image_has_no_motion() -> None:
    frames = moving_disc(HALF, HALF, 0.2)[:1]
    frames[:, 28:36, 28:36] = 250
    caption = say(frames)
    assert (caption.motion, caption.camera) == ("", "")
    assert caption.static_prompt("[v] ball") == "a [v] ball, red, on a green background, in daylight"


def test_same_frames_give_the_same_words() -> None:
    frames = np.random.default_rng(1).integers(0, 255, (9, 48, 48, 3), np.uint8)
    assert say(frames) == say(frames)


def test_blank_frames_are_no_problem() -> None:
    for level in (0, 255):
        caption = say(np.full((9, 64, 64, 3), level, np.uint8))
        assert caption.motion == "standing still"
        assert caption.static == ("black" if level == 0 else "white")


def test_users_words_come_first() -> None:
    captioner = TemplateCaptioner(appearance="with long ears", background="on a beach")
    caption = captioner.caption(moving_disc(HALF, HALF, 0.2), "dog")
    assert (caption.static, caption.background) == ("with long ears, red", "on a beach")


def test_subject_needs_a_name() -> None:
    with pytest.raises(InputError, match="has no name"):
        TemplateCaptioner().caption(moving_disc(HALF, HALF), " ")


def test_a_set_of_pictures_has_no_motion_and_only_what_is_common() -> None:
    still = moving_disc(HALF, HALF, 0.2)[0]
    elsewhere = np.where((still == RED).all(-1, keepdims=True), RED, ground(BLUE).astype(np.uint8)).astype(np.uint8)
    frames = np.stack([still, elsewhere, still, elsewhere])
    caption = TemplateCaptioner().caption(frames, "ball", unordered=True)
    assert (caption.static, caption.motion, caption.camera, caption.background) == ("red", "", "", "")
    same = TemplateCaptioner().caption(np.stack([still] * 4), "ball", unordered=True)
    assert same.background == "on a green background"
