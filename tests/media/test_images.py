"""Images: a set fitted to the base's size, upright, in 8-bit sRGB; what cannot be read is one clear error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from pipeline_lib.errors import MediaError
from pipeline_lib.media.clip import Clip
from pipeline_lib.media.limits import DEFAULT_LIMITS
from pipeline_lib.media.probe import probe
from pipeline_lib.media.read import read_clips, read_images
from tests.media.made import POCKET, square_clip


def quarters(height: int = 128, width: int = 128) -> NDArray[np.uint8]:
    """Red, green / blue, white."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (255, 0, 0)
    picture[: height // 2, width // 2 :] = (0, 255, 0)
    picture[height // 2 :, : width // 2] = (0, 0, 255)
    picture[height // 2 :, width // 2 :] = (255, 255, 255)
    return picture


def corners(frame: NDArray[np.uint8]) -> list[tuple[int, ...]]:
    return [tuple(int(v) for v in frame[y, x]) for y in (8, -8) for x in (8, -8)]


def read_one(path: Path) -> Clip:
    return read_images([path], POCKET)


def test_a_set_of_images(tmp_path: Path) -> None:
    for index, suffix in enumerate(("png", "jpg", "webp", "bmp", "tiff")):
        Image.fromarray(square_clip(5)[index]).save(tmp_path / f"{index}.{suffix}", quality=95)
    clip = read_images(sorted(tmp_path.iterdir()), POCKET)
    assert (clip.record.kind, clip.record.num_frames, clip.record.frames_per_second) == ("images", 5, 0)
    assert [fact.container for fact in clip.record.sources] == ["PNG", "JPEG", "WEBP", "BMP", "TIFF"]
    assert np.array_equal(clip.frames[0], square_clip(5)[0])
    assert np.abs(clip.frames.astype(int) - square_clip(5)).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    """Each of the eight: stored turned, tagged, and read upright again."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    upright = Image.fromarray(quarters(96, 192))
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    clip = read_one(tmp_path / "turned.png")
    facts = clip.record.sources[0]
    assert (facts.width, facts.height) == (192, 96)
    assert corners(clip.frames[0]) == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    assert any("50% of the width left out" in note for note in clip.record.notes)


def test_alpha_is_put_on_white(tmp_path: Path) -> None:
    layered = np.zeros((64, 64, 4), np.uint8)
    layered[16:48, 16:48] = (200, 0, 0, 255)
    Image.fromarray(layered).save(tmp_path / "a.png")
    clip = read_one(tmp_path / "a.png")
    assert (clip.frames[0, :8] == 255).all()
    assert (clip.frames[0, 20:44, 20:44] == (200, 0, 0)).all()
    assert clip.record.notes == ("a.png: transparent parts put on white",)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16)[None].repeat(64, 0)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    clip = read_one(tmp_path / "deep.png")
    expected = (ramp.astype(np.float64) / 257)[..., None]
    assert np.abs(clip.frames[0] - expected).max() <= 1
    assert clip.record.sources[0].bit_depth == 16
    assert any("16-bit colour" in note for note in clip.record.notes)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "LA", "RGBA", "YCbCr"])
def test_colour_modes(tmp_path: Path, mode: str) -> None:
    suffix = "tiff" if mode in ("CMYK", "YCbCr") else "png"
    Image.fromarray(quarters()).convert(mode).save(tmp_path / f"m.{suffix}")
    frame = read_one(tmp_path / f"m.{suffix}").frames[0]
    expected = Image.fromarray(quarters()).convert(mode).convert("RGB").resize((64, 64), Image.Resampling.BOX)
    assert np.abs(frame[8, 8].astype(int) - np.asarray(expected)[8, 8]).max() <= 2


def test_colour_profile_is_converted(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB", 5000))
    Image.fromarray(quarters()).save(tmp_path / "odd.png", icc_profile=profile.tobytes())
    assert any("colour profile cannot be used" in note for note in read_one(tmp_path / "odd.png").record.notes)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    Image.fromarray(quarters()).save(tmp_path / "usual.png", icc_profile=srgb.tobytes())
    clip = read_one(tmp_path / "usual.png")
    assert corners(clip.frames[0])[0] == (255, 0, 0)
    assert not any("profile" in note or "converted" in note for note in clip.record.notes)


def test_small_image_is_enlarged_and_said(tmp_path: Path) -> None:
    Image.fromarray(quarters(16, 16)).save(tmp_path / "small.png")
    (note,) = read_one(tmp_path / "small.png").record.notes
    assert note == "small.png: enlarged from 16x16 to 64x64: the source is 4 times smaller than the base's size"


def test_image_named_as_video(tmp_path: Path) -> None:
    Image.fromarray(quarters()).save(tmp_path / "picture.jpg")
    (tmp_path / "picture.jpg").rename(tmp_path / "picture.mp4")
    (clip,) = read_clips([tmp_path / "picture.mp4"], POCKET)
    assert clip.record.kind == "images"
    assert probe(tmp_path / "picture.mp4").kind == "image"


def test_large_jpeg_is_read_small_with_its_true_size(tmp_path: Path) -> None:
    Image.fromarray(quarters(2000, 3000)).save(tmp_path / "large.jpg")
    clip = read_one(tmp_path / "large.jpg")
    assert (clip.record.sources[0].width, clip.record.sources[0].height) == (3000, 2000)
    assert (
        np.abs(np.array(corners(clip.frames[0])) - [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]).max() < 4
    )


def test_unusable_images(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:9000])
    (tmp_path / "empty.png").touch()
    (tmp_path / "noise.jpg").write_bytes(b"\xff\xd8\xff" + np.random.default_rng(0).bytes(500))
    (tmp_path / "float.tiff").write_bytes(b"")
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "float.tiff")
    for name in ("cut.png", "empty.png", "noise.jpg", "float.tiff"):
        with pytest.raises(MediaError, match=name):
            read_images([tmp_path / "whole.png", tmp_path / name], POCKET)


def test_too_many_pixels(tmp_path: Path) -> None:
    Image.fromarray(quarters()).save(tmp_path / "big.png")
    with pytest.raises(MediaError, match=r"big\.png.*128x128 pixels: more than 1,000"):
        read_images([tmp_path / "big.png"], POCKET, limits=replace(DEFAULT_LIMITS, frame_pixels=1000))


def test_no_images() -> None:
    with pytest.raises(MediaError, match="no images were given"):
        read_images([], POCKET)
