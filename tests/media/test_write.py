"""Writing and reading back; contact sheets; collecting."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pipeline_lib.errors import MediaError, ResourceError
from pipeline_lib.media.collect import collect
from pipeline_lib.media.limits import MediaLimits
from pipeline_lib.media.sheet import contact_sheet
from pipeline_lib.media.write import read_video, write_video
from tests.media.made import ffmpeg, square_clip


def test_round_trip(tmp_path: Path) -> None:
    frames = square_clip(13)
    again = read_video(write_video(frames, tmp_path / "deep" / "clip.mp4", 8))
    assert again.shape == frames.shape
    error = again.astype(float) - frames
    assert 10 * np.log10(255**2 / (error**2).mean()) > 33
    assert [item.name for item in (tmp_path / "deep").iterdir()] == ["clip.mp4"]


def test_colours_survive(tmp_path: Path) -> None:
    """The matrix and range that the file is tagged with are those it was written with."""
    for colour in [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128)]:
        frames = np.full((4, 64, 64, 3), colour, np.uint8)
        again = read_video(write_video(frames, tmp_path / "c.mp4", 8))
        assert np.abs(again.astype(int) - frames).max() <= 3


def test_format_plays_everywhere(tmp_path: Path) -> None:
    path = write_video(square_clip(13), tmp_path / "clip.mp4", 8)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.format.name) == ("h264", "yuv420p")
        assert (stream.frames, float(stream.average_rate)) == (13, 8)
        assert int(stream.codec_context.colorspace) == 1
    whole = path.read_bytes()
    assert whole.find(b"moov") < whole.find(b"mdat")


def test_same_frames_give_same_bytes(tmp_path: Path) -> None:
    one = write_video(square_clip(13), tmp_path / "one.mp4", 8).read_bytes()
    assert one == write_video(square_clip(13), tmp_path / "two.mp4", 8).read_bytes()


@pytest.mark.parametrize(("height", "width"), [(33, 64), (64, 31), (1, 1), (15, 17)])
def test_odd_sizes(tmp_path: Path, height: int, width: int) -> None:
    frames = np.full((4, height, width, 3), 90, np.uint8)
    again = read_video(write_video(frames, tmp_path / "odd.mp4", 7.5))
    assert again.shape == (4, height + height % 2, width + width % 2, 3)
    assert np.abs(again.astype(int) - 90).max() <= 2


def test_scale_for_viewing(tmp_path: Path) -> None:
    frames = square_clip(3)
    again = read_video(write_video(frames, tmp_path / "large.mp4", 8, scale=3))
    assert again.shape == (3, 192, 192, 3)
    assert np.abs(again[:, 1::3, 1::3].astype(int) - frames).mean() < 2


def test_one_frame(tmp_path: Path) -> None:
    assert read_video(write_video(square_clip(1), tmp_path / "one.mp4", 8)).shape == (1, 64, 64, 3)


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (4, 8, 8), (4, 8, 8, 4), (4, 0, 8, 3)])
def test_wrong_frames(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(MediaError, match=r"bad\.mp4 cannot be written"):
        write_video(np.zeros(shape, np.uint8), tmp_path / "bad.mp4", 8)


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="ffmpeg could not write"):
        write_video(square_clip(3), tmp_path / "x.mp4", 0)
    assert list(tmp_path.iterdir()) == []


def test_whole_video_must_fit_in_memory(tmp_path: Path) -> None:
    path = write_video(square_clip(9), tmp_path / "clip.mp4", 8)
    with pytest.raises(MediaError, match=r"clip\.mp4 is too large to be read whole"):
        read_video(path, MediaLimits(kept_bytes=64 * 64 * 3 * 8))


def test_contact_sheet(tmp_path: Path) -> None:
    rows = [
        ("a", square_clip(13)),
        ("a label that is far too long for one line and " + "averyveryverylongwordwithoutanyspace" * 2, square_clip(3)),
        ("other size", square_clip(4, 32, 48)),
    ]
    sheet = np.asarray(Image.open(contact_sheet(rows, tmp_path / "deep" / "sheet.png", columns=6, scale=1)))
    height, width = sheet.shape[:2]
    assert width == 2 * 12 + 220 + 6 * 68 - 4
    # The first frame of the first row stands right of the labels, as it is.
    assert np.array_equal(sheet[12:76, 232:296], square_clip(13)[0])
    # No label reaches into the pictures: the strip between them is blank.
    assert (sheet[:, 222:232] == 255).all()
    assert height > 64 + 64 + 32


def test_collect_folder(tmp_path: Path) -> None:
    write_video(square_clip(3), tmp_path / "b.mp4", 8)
    write_video(square_clip(3), tmp_path / "a.mp4", 8)
    write_video(square_clip(3), tmp_path / ".hidden.mp4", 8)
    Image.fromarray(square_clip(1)[0]).save(tmp_path / "x.PNG")
    (tmp_path / "concept.yaml").write_text("name: x")
    (tmp_path / "inner").mkdir()
    pictures = [Image.fromarray(frame) for frame in square_clip(3)]
    pictures[0].save(tmp_path / "moving.webp", save_all=True, append_images=pictures[1:])
    pictures[0].save(tmp_path / "still.webp")
    found = collect(tmp_path)
    assert [path.name for path in found.clips] == ["a.mp4", "b.mp4", "moving.webp"]
    assert [path.name for path in found.images] == ["still.webp", "x.PNG"]
    assert collect(tmp_path / "x.PNG").images == (tmp_path / "x.PNG",)


def test_collect_nothing(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="holds no media; got an empty folder"):
        collect(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(MediaError, match=r"holds no media; got \.txt"):
        collect(tmp_path)
    with pytest.raises(MediaError, match="does not exist"):
        collect(tmp_path / "absent")
    with pytest.raises(MediaError, match=r"notes\.txt is text, not media"):
        collect(tmp_path / "notes.txt")


def test_collect_too_many(tmp_path: Path) -> None:
    for index in range(3):
        Image.fromarray(square_clip(1)[0]).save(tmp_path / f"{index}.png")
    with pytest.raises(MediaError, match="too many files; got 3; expected at most 2"):
        collect(tmp_path, MediaLimits(files=2))


def test_sound_beside_pictures_is_ignored(tmp_path: Path) -> None:
    write_video(square_clip(3), tmp_path / "a.mp4", 8)
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", tmp_path / "music.mp3")
    assert [path.name for path in collect(tmp_path).clips] == ["a.mp4"]
