"""Reading clips of every odd kind: each passes with its notes, or gives one clear error."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline_lib.errors import MediaError
from pipeline_lib.media.clip import Clip
from pipeline_lib.media.limits import DEFAULT_LIMITS
from pipeline_lib.media.probe import probe
from pipeline_lib.media.read import read_clips
from pipeline_lib.media.write import write_video
from pipeline_lib.records import FrameRules
from tests.media.made import POCKET, ffmpeg, frame_numbers, has_note, numbered_clip, read_one, square_clip


def test_plain_clip(made: Path) -> None:
    clip = read_one(made / "plain.mp4")
    facts = clip.record.sources[0]
    assert clip.frames.shape == (16, 64, 64, 3)
    assert (facts.num_frames, facts.width, facts.height, facts.frames_per_second) == (24, 96, 64, 12)
    assert (facts.kind, facts.variable_rate, facts.hdr, facts.rotation) == ("video", False, False, 0)
    assert has_note(clip, "33% of the width left out")
    assert has_note(clip, "from 12 to 8 frames per second: 8 of 24 frames left out")


def test_pixels_survive(tmp_path: Path) -> None:
    frames = square_clip(16)
    write_video(frames, tmp_path / "same.mp4", 8)
    clip = read_one(tmp_path / "same.mp4")
    assert clip.record.notes == ()
    assert np.abs(clip.frames.astype(int) - frames).mean() < 2


def test_frames_are_picked_by_time(made: Path) -> None:
    clip = read_one(made / "numbered.mp4")
    assert frame_numbers(clip.frames) == list(range(0, 30, 2))


def test_same_file_gives_same_bits(made: Path) -> None:
    one, two = read_one(made / "plain.mp4"), read_one(made / "plain.mp4")
    assert one.record == two.record
    assert np.array_equal(one.frames, two.frames)


def test_several_clips_are_a_list(made: Path) -> None:
    clips = read_clips([made / "plain.mp4", made / "numbered.mp4"], POCKET)
    assert [clip.record.name for clip in clips] == ["plain.mp4", "numbered.mp4"]


def test_save_and_load(made: Path, tmp_path: Path) -> None:
    clip = read_one(made / "plain.mp4")
    clip.save(tmp_path / "clip")
    again = Clip.load(tmp_path / "clip")
    assert again.record == clip.record
    assert np.array_equal(again.frames, clip.frames)
    assert sorted(item.name for item in (tmp_path / "clip").iterdir()) == ["clip.json", "frames.npy"]


def test_variable_rate(tmp_path: Path) -> None:
    write_video(numbered_clip(24), tmp_path / "even.mp4", 16)
    # The second half runs at a quarter of the speed.
    stretch = "setpts='if(gte(N,12),12+4*(N-12),N)/16/TB'"
    ffmpeg("-i", tmp_path / "even.mp4", "-vf", stretch, "-fps_mode", "passthrough", "-c:v", "ffv1", tmp_path / "v.mkv")
    clip = read_one(tmp_path / "v.mkv")
    assert clip.record.sources[0].variable_rate
    assert has_note(clip, "variable frame rate")
    seconds = np.arange(len(clip.frames)) / 8
    expected = np.where(seconds < 0.75, seconds * 16, 12 + (seconds - 0.75) * 4)
    assert np.abs(np.array(frame_numbers(clip.frames)) - expected).max() <= 1


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.webm", "libvpx-vp9"),
        ("a.avi", "mpeg4"),
        ("a.ts", "libx264"),
        ("a.mov", "prores_ks"),
        ("a.ogv", "libtheora"),
        ("a.flv", "flv"),
        ("a.wmv", "wmv2"),
        ("a.h264", "libx264"),
    ],
)
def test_containers_and_codecs(made: Path, tmp_path: Path, name: str, codec: str) -> None:
    """The same frames at the same times, whatever they are wrapped in."""
    ffmpeg("-i", made / "numbered.mp4", "-r", "16", "-c:v", codec, "-q:v", "2", tmp_path / name)
    clip = read_one(tmp_path / name)
    assert frame_numbers(clip.frames) == list(range(0, 30, 2))
    assert has_note(clip, "from 16 to 8 frames per second")


def test_theora_reads_the_same_each_time(made: Path, tmp_path: Path) -> None:
    """Its decoder loses pictures in about one reading of four when it has several threads."""
    ffmpeg("-i", made / "numbered.mp4", "-r", "16", "-c:v", "libtheora", "-q:v", "2", tmp_path / "a.ogv")
    readings = [frame_numbers(read_one(tmp_path / "a.ogv").frames) for _ in range(8)]
    assert readings == [list(range(0, 30, 2))] * 8


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation(made: Path, tmp_path: Path, degrees: int) -> None:
    turned = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", str(degrees), "-i", made / "plain.mp4", "-c", "copy", turned)
    clip = read_one(turned, FrameRules(height=96, width=64, num_frames=13, frames_per_second=8))
    upright = np.rot90(
        read_one(made / "plain.mp4", FrameRules(height=64, width=96, num_frames=13, frames_per_second=8)).frames,
        degrees // 90,
        (1, 2),
    )
    facts = clip.record.sources[0]
    assert (facts.width, facts.height) == ((64, 96) if degrees != 180 else (96, 64))
    assert facts.rotation == degrees
    assert has_note(clip, f"turned upright by {degrees} degrees")
    if degrees != 180:
        assert np.abs(clip.frames.astype(int) - upright).mean() < 2


@pytest.mark.parametrize(
    ("codec", "pixels"), [("libx264", "yuv420p10le"), ("libx265", "yuv420p10le"), ("libsvtav1", "yuv420p10le")]
)
def test_ten_bits(made: Path, tmp_path: Path, codec: str, pixels: str) -> None:
    ffmpeg("-i", made / "plain.mp4", "-c:v", codec, "-crf", "10", "-pix_fmt", pixels, tmp_path / "ten.mkv")
    clip = read_one(tmp_path / "ten.mkv")
    assert clip.record.sources[0].bit_depth == 10
    assert has_note(clip, "10-bit colour")
    assert np.abs(clip.frames.astype(int) - read_one(made / "plain.mp4").frames).mean() < 4


@pytest.mark.parametrize(("transfer", "code"), [("smpte2084", 0.5807), ("arib-std-b67", 0.75)])
def test_hdr_white_comes_out_light(tmp_path: Path, transfer: str, code: float) -> None:
    """Diffuse white of BT.2408 is 58 % in PQ and 75 % in HLG; both are 203 cd/m2."""
    level = round(65535 * code)
    raw = tmp_path / "white.raw"
    np.full((24, 64, 64, 3), level, "<u2").tofile(raw)
    tags = ("-color_trc", transfer, "-color_primaries", "bt2020", "-colorspace", "bt2020nc")
    colours = f"color_trc={transfer}:color_primaries=bt2020:colorspace=bt2020nc"
    convert = f"scale=out_color_matrix=bt2020:out_range=tv,format=yuv420p10le,setparams={colours}"
    ffmpeg(
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb48le",
        "-s",
        "64x64",
        "-r",
        "12",
        "-i",
        raw,
        "-vf",
        convert,
        "-c:v",
        "libx265",
        "-crf",
        "4",
        *tags,
        tmp_path / "hdr.mp4",
    )
    clip = read_one(tmp_path / "hdr.mp4")
    assert clip.record.sources[0].hdr
    assert has_note(clip, "tone-mapped")
    # Roll-off takes diffuse white to 0.80 of the light, which sRGB codes as 231.
    assert np.abs(clip.frames.astype(int) - 231).max() <= 4


def test_four_k_is_streamed(tmp_path: Path) -> None:
    ffmpeg(
        "-f",
        "lavfi",
        "-i",
        "testsrc2=s=3840x2160:r=24:d=1",
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        tmp_path / "4k.mp4",
    )
    tracemalloc.start()
    clip = read_one(tmp_path / "4k.mp4", POCKET)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert clip.record.sources[0].num_frames == 24
    # One frame of the source alone is 25 MB.
    assert peak < 8e6


def test_wide_pixels_are_made_square(made: Path, tmp_path: Path) -> None:
    ffmpeg("-i", made / "plain.mp4", "-vf", "setsar=2", "-c:v", "ffv1", tmp_path / "wide.mkv")
    facts = probe(tmp_path / "wide.mkv")
    assert (facts.width, facts.height) == (192, 64)


def test_interlaced(made: Path, tmp_path: Path) -> None:
    ffmpeg(
        "-i", made / "plain.mp4", "-vf", "setfield=tff", "-c:v", "libx264", "-flags", "+ildct+ilme", tmp_path / "i.mp4"
    )
    assert has_note(read_one(tmp_path / "i.mp4"), "interlaced")


def test_alpha_is_put_on_white(tmp_path: Path) -> None:
    raw = np.zeros((24, 64, 64, 4), np.uint8)
    raw[:, 16:48, 16:48] = (200, 0, 0, 255)
    raw.tofile(tmp_path / "a.raw")
    ffmpeg(
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgba",
        "-s",
        "64x64",
        "-r",
        "12",
        "-i",
        tmp_path / "a.raw",
        "-c:v",
        "png",
        tmp_path / "a.mov",
    )
    clip = read_one(tmp_path / "a.mov")
    assert has_note(clip, "transparent parts put on white")
    assert (clip.frames[:, :8, :8] == 255).all()
    assert np.abs(clip.frames[:, 20:44, 20:44].astype(int) - (200, 0, 0)).max() <= 2


def test_largest_of_several_streams(made: Path, tmp_path: Path) -> None:
    ffmpeg(
        "-i",
        made / "plain.mp4",
        "-filter_complex",
        "[0:v]split[a][b];[a]scale=48:32[s]",
        "-map",
        "[s]",
        "-map",
        "[b]",
        tmp_path / "two.mp4",
    )
    clip = read_one(tmp_path / "two.mp4")
    assert clip.record.sources[0].width == 96
    assert has_note(clip, "2 video streams: the largest (96x64) is used")


def test_size_change_within_a_file(made: Path, tmp_path: Path) -> None:
    ffmpeg("-i", made / "plain.mp4", "-c:v", "libx264", tmp_path / "one.ts")
    ffmpeg("-i", made / "plain.mp4", "-vf", "scale=192:128", "-c:v", "libx264", tmp_path / "two.ts")
    both = tmp_path / "both.ts"
    both.write_bytes((tmp_path / "one.ts").read_bytes() + (tmp_path / "two.ts").read_bytes())
    clip = read_one(both)
    assert clip.record.sources[0].num_frames == 48
    assert has_note(clip, "changes its size")


@pytest.mark.parametrize("suffix", ["gif", "apng"])
def test_animated_pictures_are_clips(made: Path, tmp_path: Path, suffix: str) -> None:
    ffmpeg("-i", made / "plain.mp4", "-plays" if suffix == "apng" else "-loop", "0", tmp_path / f"a.{suffix}")
    clip = read_one(tmp_path / f"a.{suffix}")
    assert clip.record.kind == "video"
    assert clip.record.sources[0].num_frames == 24


def test_animated_webp(made: Path, tmp_path: Path) -> None:
    pictures = [Image.fromarray(frame) for frame in numbered_clip(24)]
    pictures[0].save(tmp_path / "a.webp", save_all=True, append_images=pictures[1:], duration=125, lossless=True)
    clip = read_one(tmp_path / "a.webp")
    assert clip.record.kind == "video"
    assert clip.record.sources[0].codec == "webp"
    assert frame_numbers(clip.frames) == list(range(24))


def test_one_frame_is_an_image(tmp_path: Path) -> None:
    write_video(square_clip(1), tmp_path / "one.mp4", 8)
    clip = read_one(tmp_path / "one.mp4")
    assert clip.record.kind == "images"
    assert clip.frames.shape == (1, 64, 64, 3)
    assert has_note(clip, "a video of one frame: used as an image")
    assert probe(tmp_path / "one.mp4").kind == "image"


def test_short_clip_is_slowed_down(tmp_path: Path) -> None:
    write_video(numbered_clip(20), tmp_path / "short.mp4", 20)
    clip = read_one(tmp_path / "short.mp4")
    assert len(clip.frames) == 13
    assert has_note(clip, "slowed down 1.62 times")
    numbers = frame_numbers(clip.frames)
    assert numbers[0] == 0
    assert numbers[-1] >= 18


def test_too_short_clip_says_what_would_do(tmp_path: Path) -> None:
    write_video(numbered_clip(5), tmp_path / "short.mp4", 10)
    with pytest.raises(
        MediaError, match=r"short\.mp4 is too short; got 5 frames in 0\.50 s; expected at least 0\.81 s"
    ) as caught:
        read_one(tmp_path / "short.mp4")
    assert "set num_frames to 8 or less" in str(caught.value)


def test_long_clip_is_cut_and_said(made: Path) -> None:
    limits = replace(DEFAULT_LIMITS, kept_bytes=14 * 64 * 64 * 3)
    (clip,) = read_clips([made / "numbered.mp4"], POCKET, limits=limits)
    assert len(clip.frames) == 14
    assert has_note(clip, "kept the first")
