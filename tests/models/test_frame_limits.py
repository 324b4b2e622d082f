"""Lengths and sizes that a base cannot make: the nearest that it can are named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.errors import InputError
from pipeline_lib.models.folder import CARD_NAME
from pipeline_lib.models.frame_limits import check_video
from pipeline_lib.models.load import load_base
from pipeline_lib.records import FrameRules


def rules(frame_multiple: int = 4, size_multiple: int = 16) -> FrameRules:
    return FrameRules(
        height=32,
        width=32,
        num_frames=17,
        frames_per_second=16,
        size_multiple=size_multiple,
        frame_multiple=frame_multiple,
    )


@pytest.mark.parametrize(
    ("frames", "width", "height", "near"),
    [
        (15, 32, 32, "13 or 17 frames"),
        (0, 32, 32, "1 frames"),
        (17, 40, 32, "width 32 or 48"),
        (17, 8, 32, "width 16"),
        (16, 33, 31, "13 or 17 frames, width 32 or 48, height 16 or 32"),
    ],
)
def test_the_nearest_are_named(frames: int, width: int, height: int, near: str) -> None:
    with pytest.raises(InputError, match=f"the nearest: {near}$"):
        check_video("no", frames, width, height, rules())


@given(st.integers(-5, 300), st.integers(-5, 300), st.integers(1, 12), st.sampled_from([8, 16, 32]))
def test_what_is_named_is_taken(frames: int, side: int, frame_multiple: int, size_multiple: int) -> None:
    asked = rules(frame_multiple, size_multiple)
    try:
        check_video("no", frames, side, side, asked)
    except InputError as error:
        lengths = (
            [int(n) for n in re.findall(r"\d+", error.fix.partition(" frames")[0])] if "frames" in error.fix else []
        )
        sides = [int(n) for n in re.findall(r"\d+", error.fix.partition("height")[2])]
        assert lengths or sides
        assert all(0 < abs(near - frames) < frame_multiple or near == 1 for near in lengths)
        for length in lengths or [frames]:
            for near in sides or [side]:
                check_video("no", length, near, near, asked)


def test_a_card_that_contradicts_its_networks_is_refused(own_folder: Path) -> None:
    card = own_folder / CARD_NAME
    card.write_text(re.sub(r'"num_frames": \d+', '"num_frames": 15', card.read_text()))
    with pytest.raises(InputError, match="the nearest: 13 or 17 frames"):
        load_base(str(own_folder))
