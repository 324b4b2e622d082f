"""Reading what is broken, foreign or too large: one clear error, or what is left of it and a note."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from pipeline_lib.errors import MediaError
from pipeline_lib.media.limits import DEFAULT_LIMITS, ChildLimits
from pipeline_lib.media.read import read_clips
from pipeline_lib.media.write import write_video
from tests.media.made import POCKET, ffmpeg, has_note, read_one


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("sound.mp4", ("-f", "lavfi", "-i", "sine=d=1"), "has no video stream"),
        ("sound.mp3", ("-f", "lavfi", "-i", "sine=d=1"), "cannot be opened as video|no video stream"),
    ],
)
def test_sound_only(tmp_path: Path, name: str, arguments: tuple[str, ...], words: str) -> None:
    ffmpeg(*arguments, tmp_path / name)
    with pytest.raises(MediaError, match=f"{name}.*({words})"):
        read_one(tmp_path / name)


def test_truncated_without_index(made: Path, tmp_path: Path) -> None:
    ffmpeg("-i", made / "plain.mp4", "-c", "copy", tmp_path / "late.mp4")
    whole = (tmp_path / "late.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    with pytest.raises(MediaError, match=r"cut\.mp4 cannot be opened as video.*copy or export it again"):
        read_one(tmp_path / "cut.mp4")


def test_truncated_with_enough_left_is_used_and_said(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (48, 64, 64, 3), np.uint8)
    write_video(frames, tmp_path / "whole.mp4", 12)
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 7 // 10])
    clip = read_one(tmp_path / "cut.mp4")
    assert 13 <= len(clip.frames) < 32
    assert has_note(clip, "cut short") or has_note(clip, "damaged")


def test_damaged_middle_is_said(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (48, 64, 64, 3), np.uint8)
    write_video(frames, tmp_path / "whole.mp4", 12)
    bytes_ = bytearray((tmp_path / "whole.mp4").read_bytes())
    middle = len(bytes_) // 2
    bytes_[middle : middle + 2000] = bytes(2000)
    (tmp_path / "hurt.mp4").write_bytes(bytes_)
    assert has_note(read_one(tmp_path / "hurt.mp4"), "damaged: the decoder reported")


def test_files_that_are_no_media(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "note.mp4").write_text("#EXTM3U\nfile:///etc/passwd\n")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(1).bytes(5000))
    (tmp_path / "folder.mp4").mkdir()
    cases = {
        "absent.mp4": "does not exist", "empty.mp4": "is empty", "note.mp4": "is text, not media",
        "noise.mp4": "cannot be opened as video", "folder.mp4": "is a folder",
    }  # fmt: skip
    for name, words in cases.items():
        with pytest.raises(MediaError, match=f"{name}.*{words}"):
            read_one(tmp_path / name)


def test_container_not_allowed(tmp_path: Path) -> None:
    """A playlist behind binary bytes, and a script that opens other files, are never followed."""
    (tmp_path / "list.mkv").write_bytes(b"ffconcat version 1.0\nfile '/etc/hostname'\n\x00")
    with pytest.raises(MediaError, match=r"list\.mkv cannot be opened as video.*not an allowed container"):
        read_one(tmp_path / "list.mkv")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"file_bytes": 100}, "is too large"),
        ({"frame_pixels": 64 * 64}, "has too large frames; got 96x64"),
        ({"decoded_frames": 10}, "is too long; got more than 10 frames"),
        ({"seconds": 1.0}, "is too long; got 2 s"),
        ({"child": ChildLimits(wall_seconds=0.001)}, "not done after 0.001 s"),
        ({"child": ChildLimits(memory_bytes=48 * 1024**2)}, r"more than 48 MiB of memory|decoder"),
    ],
)
def test_caps(made: Path, change: dict[str, object], words: str) -> None:
    limits = replace(DEFAULT_LIMITS, **change)  # type: ignore[arg-type]
    with pytest.raises(MediaError, match=rf"plain\.mp4.*({words})"):
        read_clips([made / "plain.mp4"], POCKET, limits=limits)


def test_names_cannot_be_options_or_protocols(made: Path, tmp_path: Path) -> None:
    for name in ("-y.mp4", "concat:a|b.mp4", "a b'\"$(x)%03d.mp4", "ünï\u202ecode.mp4"):
        (tmp_path / name).write_bytes((made / "plain.mp4").read_bytes())
        clip = read_one(tmp_path / name)
        assert clip.record.sources[0].num_frames == 24
        assert not set(clip.record.name) & set("|:'\"$%\u202e/")


def test_runs_without_a_system_ffmpeg(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline_lib.media.ffmpeg_command import ffmpeg_binary

    monkeypatch.setenv("PATH", "/nonexistent")
    ffmpeg_binary.cache_clear()
    try:
        assert ffmpeg_binary().path == imageio_ffmpeg.get_ffmpeg_exe()
        assert len(read_one(made / "plain.mp4").frames) == 16
    finally:
        ffmpeg_binary.cache_clear()
