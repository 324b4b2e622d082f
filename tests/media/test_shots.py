"""Cuts and dissolves are found; motion, flashes, fades of light and noise are not taken for them."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline_lib.errors import MediaError
from pipeline_lib.media.read import read_clips
from pipeline_lib.media.shots import find_shots
from pipeline_lib.media.write import write_video
from tests.media.made import POCKET, square_clip


def scene(seed: int, count: int = 30) -> NDArray[np.uint8]:
    """A random patchwork with a moving square: one shot."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(0, 255, (4, 4, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    frames = np.broadcast_to(ground, (count, 32, 32, 3)).copy()
    for index in range(count):
        left = index * 20 // count
        frames[index, 10:20, left : left + 10] = 255
    return frames


def spans(frames: NDArray[np.uint8], frame_seconds: float = 1 / 24) -> list[tuple[int, int]]:
    return [(shot.start, shot.stop) for shot in find_shots(frames, frame_seconds)]


def dissolve(one: NDArray[np.uint8], two: NDArray[np.uint8], length: int) -> NDArray[np.uint8]:
    share = np.linspace(0, 1, length + 2)[1:-1, None, None, None]
    blended = (1 - share) * one[-length:] + share * two[:length]
    return np.concatenate([one[:-length], blended.astype(np.uint8), two[length:]])


def test_one_shot() -> None:
    assert spans(scene(0)) == [(0, 30)]


def test_cuts() -> None:
    frames = np.concatenate([scene(0, 20), scene(1, 30), scene(2, 10)])
    assert spans(frames) == [(0, 20), (20, 50), (50, 60)]


@pytest.mark.parametrize("length", [8, 16, 30])
def test_dissolve(length: int) -> None:
    one, two = scene(3, 60), scene(4, 60)
    found = spans(dissolve(one, two, length))
    assert len(found) == 2
    assert abs(found[0][1] - (60 - length)) <= 3 + length / 8
    assert abs(found[1][0] - 60) <= 3 + length / 8


@pytest.mark.parametrize("length", [1, 2])
def test_flash_is_no_cut(length: int) -> None:
    frames = scene(5, 40)
    frames[20 : 20 + length] = 255
    assert spans(frames) == [(0, 40)]


def test_exposure_fade_is_no_cut() -> None:
    light = np.linspace(1, 0.3, 40)[:, None, None, None]
    assert spans((scene(6, 40) * light).astype(np.uint8)) == [(0, 40)]


def test_plain_brightness_ramp_is_no_cut() -> None:
    ramp = np.linspace(0, 250, 30).astype(np.uint8)[:, None, None, None]
    assert spans(np.broadcast_to(ramp, (30, 32, 32, 3)).copy()) == [(0, 30)]


def test_noise_is_no_cut() -> None:
    assert spans(np.random.default_rng(0).integers(0, 255, (30, 32, 32, 3), np.uint8)) == [(0, 30)]


def test_fast_pan_is_no_cut() -> None:
    wide = np.random.default_rng(1).integers(0, 255, (4, 40, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    frames = np.stack([wide[:, 8 * index : 8 * index + 32] for index in range(30)])
    assert spans(frames) == [(0, 30)]


def test_long_restless_film_is_quick() -> None:
    """Twenty thousand frames, the most that are allowed, of a picture that never rests."""
    wide = np.random.default_rng(2).integers(0, 255, (32, 4096, 3), np.uint8)
    starts = (np.arange(20_000) * 3) % 4000
    frames = np.stack([wide[:, start : start + 32] for start in starts])
    begin = time.process_time()
    assert len(spans(frames)) < 40
    assert time.process_time() - begin < 20


@pytest.fixture(scope="module")
def two_shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    one, two = square_clip(20, colour=(220, 30, 30)), 255 - square_clip(30, colour=(30, 30, 220))
    path = tmp_path_factory.mktemp("shots") / "two.mp4"
    return write_video(np.concatenate([one, two]), path, 10)


def test_longest_shot_is_used_and_all_are_told(two_shots: Path) -> None:
    (clip,) = read_clips([two_shots], POCKET)
    assert [(shot.start, shot.stop) for shot in clip.record.shots] == [(0, 20), (20, 50)]
    assert clip.record.shot_used == 1
    assert "2 shots (1: 0.0-2.0 s, 2: 2.0-4.9 s): shot 2 is used" in clip.record.notes
    assert len(clip.frames) == 24


def test_chosen_shot_is_used(two_shots: Path) -> None:
    (clip,) = read_clips([two_shots], POCKET, shot=0)
    assert clip.record.shot_used == 0
    assert np.abs(clip.frames[0].astype(int) - square_clip(20, colour=(220, 30, 30))[0]).mean() < 4


def test_shot_that_is_not_there(two_shots: Path) -> None:
    with pytest.raises(MediaError, match=r"two\.mp4 has no shot 3; got 2 shots; expected a number from 1 to 2"):
        read_clips([two_shots], POCKET, shot=2)
