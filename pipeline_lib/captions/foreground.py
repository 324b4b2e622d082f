"""Guesses which pixels are the subject, without any model: what differs from the border, and what moves."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_BINS = 12
_BORDER = 0.12
_MOVED = 40
_SURELY_OUTSIDE = 0.04


def foreground(frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """A rough mask of the subject in each frame.

    A pixel's colour is weighed by how much more common it is in the middle than at the border; what
    moves against the clip's median frame counts in favour. GrabCut sharpens the guess; of each frame the
    largest piece near the middle is kept.

    Args:
        frames: (frames, height, width, 3) uint8.

    Returns:
        (frames, height, width) bool; may be empty in some frames.
    """
    count, height, width = frames.shape[:3]
    rows, columns = np.mgrid[0:height, 0:width]
    edge = np.minimum.reduce([rows / height, columns / width, 1 - (rows + 1) / height, 1 - (columns + 1) / width])
    index = _colour_index(frames)
    border = _histogram(index[:, edge < _BORDER])
    middle = _histogram(index[:, edge > 2 * _BORDER])
    likely = (middle / (middle + border + 1e-9))[index]
    if count > 2:
        usual = np.median(frames[:: max(1, count // 32)], axis=0).astype(np.int16)
        moved = np.abs(frames.astype(np.int16) - usual).sum(-1) > _MOVED
        # Where a moving camera shifts everything, motion says nothing.
        if moved.mean() < 0.35:
            likely = np.where(moved, np.maximum(likely, 0.75), likely)
    guess = np.stack([cv2.GaussianBlur(part.astype(np.float32), (0, 0), max(1.0, height / 64)) for part in likely])
    return _sharpened(frames, guess > 0.6, edge < _SURELY_OUTSIDE)


def _sharpened(frames: NDArray[np.uint8], guess: NDArray[np.bool_], outside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """GrabCut over all frames as one tall picture, so that they share their colour models."""
    if not guess.any():
        return guess
    count, height, width = guess.shape
    labels = np.where(guess, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[:, outside] = cv2.GC_BGD
    tall = labels.reshape(count * height, width)
    if (labels == cv2.GC_PR_FGD).any():
        # GrabCut starts from a k-means of its own: without a seed it differs from call to call.
        cv2.setRNGSeed(0)
        picture = np.ascontiguousarray(frames[..., ::-1]).reshape(count * height, width, 3)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(picture, tall, None, *models, 3, cv2.GC_INIT_WITH_MASK)
    inside = np.isin(tall.reshape(guess.shape), (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    return np.stack([_main_piece(cv2.morphologyEx(mask, cv2.MORPH_OPEN, kernel)) for mask in inside])


def _colour_index(frames: NDArray[np.uint8]) -> NDArray[np.int64]:
    levels = (frames.astype(np.int64) * _BINS) >> 8
    return (levels[..., 0] * _BINS + levels[..., 1]) * _BINS + levels[..., 2]


def _histogram(index: NDArray[np.int64]) -> NDArray[np.float64]:
    counts = np.bincount(index.ravel(), minlength=_BINS**3).astype(np.float64).reshape(_BINS, _BINS, _BINS)
    smooth = cv2.GaussianBlur(counts.reshape(_BINS, -1), (3, 3), 0.6).reshape(-1)
    return np.asarray(smooth / max(1.0, counts.sum()), np.float64)


def _main_piece(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    number, labels, stats, centres = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if number < 2:
        return np.zeros(mask.shape, np.bool_)
    height, width = mask.shape
    away = np.hypot(centres[1:, 0] / width - 0.5, centres[1:, 1] / height - 0.5)
    weight = stats[1:, cv2.CC_STAT_AREA] * np.exp(-3 * away**2)
    return np.asarray(labels == 1 + int(weight.argmax()), np.bool_)
