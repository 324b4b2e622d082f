"""Real clips and images, where they are: every one passes."""

from __future__ import annotations

from pathlib import Path

from pipeline_lib.media.collect import collect
from pipeline_lib.media.read import read_clips, read_images
from pipeline_lib.records import FrameRules
from tests.media.made import POCKET

LARGE = FrameRules(height=480, width=832, num_frames=9, frames_per_second=16)


def clips(folder: Path) -> list[Path]:
    return [path for part in ("clips", "formats") for path in collect(folder / part).clips]


def test_every_clip_passes(media_folder: Path) -> None:
    assert len(clips(media_folder)) == 7
    for clip in read_clips(clips(media_folder), POCKET):
        assert clip.frames.shape[1:] == (64, 64, 3)
        assert len(clip.frames) >= 13
        assert clip.frames.std() > 10
        assert clip.record.notes


def test_at_a_large_base_size(media_folder: Path) -> None:
    names = ("wolf.mp4", "h265_10bits.mp4", "bt709_full_range.mp4")
    for clip in read_clips([path for path in clips(media_folder) if path.name in names], LARGE):
        assert clip.frames.shape[1:] == (480, 832, 3)
        assert len(clip.frames) >= 9


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
