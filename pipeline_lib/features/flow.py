"""Optical flow without weights: OpenCV's DIS."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

DIS_NAME = f"opencv-dis-medium {cv2.__version__}"
SMALLEST_SIDE = 128
"""Smaller frames are upsampled for the flow: patches and pyramid need room."""


def upsampling_factor(height: int, width: int) -> int:
    """How many times larger frames are made before the flow; whole, so that pixels stay aligned."""
    return max(1, -(-SMALLEST_SIDE // min(height, width)))


def dis_flow(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Dense flow between neighbouring frames.

    Args:
        frames: (T, H, W, 3), RGB.

    Returns:
        (T - 1, H, W, 2): where each pixel goes, (right, down), in pixels of the frames as given.
    """
    num_frames, height, width, _ = frames.shape
    factor = upsampling_factor(height, width)
    grey = [_grey(frame, factor) for frame in frames]
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = np.zeros((max(0, num_frames - 1), height, width, 2), np.float32)
    for index, (before, after) in enumerate(pairwise(grey)):
        large = estimator.calc(before, after, None)
        flow[index] = large.reshape(height, factor, width, factor, 2).mean((1, 3)) / factor
    return flow


def _grey(frame: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    if factor == 1:
        return np.asarray(grey, np.uint8)
    return np.asarray(cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), np.uint8)
