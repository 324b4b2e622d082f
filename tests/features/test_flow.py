"""DIS flow against motions that we made ourselves."""

import cv2
import numpy as np
import pytest

from pipeline_lib.features.flow import dis_flow, upsampling_factor


def _texture(side: int) -> np.ndarray:
    noise = np.random.default_rng(3).integers(0, 256, (side, side, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX)


@pytest.mark.parametrize("side", [48, 64, 160])
@pytest.mark.parametrize(("right", "down"), [(2, 0), (0, -2), (-1, 2)])
def test_a_shift_is_found_in_pixels_of_the_frames_as_given(side: int, right: int, down: int) -> None:
    image = _texture(side)
    moved = np.roll(image, (down, right), axis=(0, 1))
    flow = dis_flow(np.stack([image, moved]))
    assert flow.shape == (1, side, side, 2)
    assert flow.dtype == np.float32
    inner = flow[0, 8:-8, 8:-8]
    np.testing.assert_allclose(np.median(inner, axis=(0, 1)), [right, down], atol=0.1)


def test_still_frames_do_not_flow() -> None:
    image = _texture(64)
    assert np.abs(dis_flow(np.stack([image, image, image]))).max() < 1e-3


def test_one_frame_has_no_flow() -> None:
    assert dis_flow(_texture(64)[None]).shape == (0, 64, 64, 2)


def test_it_is_deterministic_whatever_the_number_of_threads() -> None:
    frames = np.stack([np.roll(_texture(64), shift, 1) for shift in (0, 3, 5)])
    threads = cv2.getNumThreads()
    try:
        flows = []
        for count in (1, 2, 4):
            cv2.setNumThreads(count)
            flows.append(dis_flow(frames))
    finally:
        cv2.setNumThreads(threads)
    assert all(np.array_equal(flows[0], flow) for flow in flows)


@pytest.mark.parametrize(("size", "factor"), [((64, 64), 2), ((128, 300), 1), ((127, 300), 2), ((40, 64), 4)])
def test_small_frames_are_upsampled_by_a_whole_factor(size: tuple[int, int], factor: int) -> None:
    assert upsampling_factor(*size) == factor
