"""Clips that several modules of these tests read."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline_lib.media.write import write_video
from tests.media.made import numbered_clip, square_clip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_video(square_clip(24, 64, 96), folder / "plain.mp4", 12)
    write_video(numbered_clip(31), folder / "numbered.mp4", 16)
    return folder
