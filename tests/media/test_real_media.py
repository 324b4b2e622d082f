"""Real clips and images, where they are: every one passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline_lib.media.collect import collect
from pipeline_lib.media.read import read_clips, read_images
from pipeline_lib.records import FrameRules
from tests.media.made import POCKET

LARGE = FrameRules(height=480, width=832, num_frames=9, frames_per_second=16)


@pytest.mark.parametrize("rules", [POCKET, LARGE], ids=["pocket", "large"])
def test_every_clip_passes(media_folder: Path, rules: FrameRules) -> None:
    paths = [path for part in ("clips", "formats") for path in collect(media_folder / part).clips]
    assert len(paths) == 7
    for clip in read_clips(paths, rules):
        assert clip.frames.shape[1:] == (rules.height, rules.width, 3)
        assert len(clip.frames) >= rules.num_frames
        assert clip.frames.std() > 10
        assert clip.record.notes


def test_shots_of_a_film(media_folder: Path) -> None:
    """A dissolve at 5 s and a cut at 8 s."""
    (clip,) = read_clips([media_folder / "clips" / "nasa_13013.mp4"], POCKET)
    one, two, three = clip.record.shots
    assert (two.stop, three.start, three.stop) == (240, 240, 390)
    assert 140 <= one.stop <= 156
    assert 172 <= two.start <= 182


def test_every_image_set_passes(media_folder: Path) -> None:
    for folder in sorted(path for path in (media_folder / "subjects").iterdir() if path.is_dir()):
        images = collect(folder).images
        clip = read_images(images, POCKET)
        assert clip.record.num_frames == len(images) >= 4
