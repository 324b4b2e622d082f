"""Mask tracks, their latent twins, and masks that the user gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from pipeline_lib.errors import ArtifactError, MediaError
from pipeline_lib.masks.given import GivenMasks
from pipeline_lib.masks.track import MaskTrack
from pipeline_lib.media.write import write_video

FRAMES = np.zeros((9, 64, 64, 3), np.uint8)


def square_masks(count: int = 9) -> NDArray[np.float32]:
    masks = np.zeros((count, 64, 64), np.float32)
    for index in range(count):
        masks[index, 16:32, 4 * index : 4 * index + 16] = 1
    return masks


def test_area_and_empty_frames() -> None:
    masks = square_masks()
    masks[3] = 0
    track = MaskTrack(masks)
    assert track.area.tolist() == [0 if index == 3 else 1 / 16 for index in range(9)]
    assert track.empty_frames() == (3,)


def test_everything() -> None:
    track = MaskTrack.everything(9, 64, 48)
    assert track.area.tolist() == [1] * 9
    assert np.array_equal(track.latent_mask(3, 8, 6), np.ones((3, 8, 6), np.float32))


def test_without_compression_in_time_it_is_the_block_average() -> None:
    track = MaskTrack(square_masks())
    blocks = square_masks().reshape(9, 8, 8, 8, 8).mean((2, 4))
    assert track.latent_mask(9, 8, 8) == pytest.approx(blocks, abs=1e-6)


@given(arrays(np.float32, (9, 16, 16), elements=st.floats(0, 1, width=32)))
def test_with_compression_it_is_the_largest_of_the_frames(masks: NDArray[np.float32]) -> None:
    """First frame alone, then four by four; averages over blocks first, then the maximum."""
    blocks = masks.astype(np.float64).reshape(9, 4, 4, 4, 4).mean((2, 4))
    expected = np.stack([blocks[0], blocks[1:5].max(0), blocks[5:9].max(0)])
    assert MaskTrack(masks).latent_mask(3, 4, 4) == pytest.approx(expected, abs=1e-5)


@given(arrays(np.float32, (5, 12, 20), elements=st.floats(0, 1, width=32)))
def test_space_average_keeps_the_mean(masks: NDArray[np.float32]) -> None:
    """Also where blocks are not whole: 12x20 to 5x7."""
    latent = MaskTrack(masks).latent_mask(5, 5, 7)
    assert latent.mean((1, 2)) == pytest.approx(masks.mean((1, 2)), abs=1e-4)
    assert latent.min() >= 0
    assert latent.max() <= 1


def test_one_latent_frame_sees_the_whole_clip() -> None:
    latent = MaskTrack(square_masks()).latent_mask(1, 64, 64)
    assert np.array_equal(latent[0], square_masks().max(0))


def test_frames_must_divide() -> None:
    with pytest.raises(AssertionError, match="divide"):
        MaskTrack(square_masks()).latent_mask(4, 8, 8)


def test_window() -> None:
    assert np.array_equal(MaskTrack(square_masks()).window(2, 5).masks, square_masks()[2:5])


def test_save_and_load(tmp_path: Path) -> None:
    soft = np.linspace(0, 1, 5 * 8 * 8, dtype=np.float32).reshape(5, 8, 8)
    MaskTrack(soft).save(tmp_path / "deep")
    assert np.abs(MaskTrack.load(tmp_path / "deep").masks - soft).max() <= 0.5 / 255 + 1e-6
    with pytest.raises(ArtifactError, match="no mask track"):
        MaskTrack.load(tmp_path)
    (tmp_path / "masks.npz").write_bytes(b"broken")
    with pytest.raises(ArtifactError, match="no mask track"):
        MaskTrack.load(tmp_path)


def test_given_video(tmp_path: Path) -> None:
    frames = (square_masks()[..., None] * 255).astype(np.uint8).repeat(3, -1)
    write_video(frames, tmp_path / "mask.mp4", 8)
    track = GivenMasks(tmp_path / "mask.mp4").segment(FRAMES, "dog")
    assert np.abs(track.masks - square_masks()).max() < 0.1


def test_given_images_in_order(tmp_path: Path) -> None:
    for index, mask in enumerate(square_masks()):
        Image.fromarray((mask * 255).astype(np.uint8)).save(tmp_path / f"{index:03}.png")
    track = GivenMasks(tmp_path).segment(FRAMES, "dog")
    assert np.array_equal(track.masks, square_masks())


def test_one_mask_serves_all_frames_and_is_fitted(tmp_path: Path) -> None:
    mask = np.zeros((128, 256), np.uint8)
    mask[:, 56:200] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert GivenMasks(tmp_path / "mask.png").segment(FRAMES, "dog").area.min() == 1


def test_given_masks_that_do_not_fit(tmp_path: Path) -> None:
    for index in range(4):
        Image.fromarray(np.full((64, 64), 255, np.uint8)).save(tmp_path / f"{index}.png")
    with pytest.raises(MediaError, match="does not fit the clip; got 4 masks; expected 1 or 9"):
        GivenMasks(tmp_path).segment(FRAMES, "dog")
    write_video(FRAMES, tmp_path / "mask.mp4", 8)
    with pytest.raises(MediaError, match="more than one set of masks"):
        GivenMasks(tmp_path).segment(FRAMES, "dog")
    with pytest.raises(MediaError, match=r"mask\.mp4 is empty in every frame"):
        GivenMasks(tmp_path / "mask.mp4").segment(FRAMES, "dog")
