"""Motion in plain words, measured from the subject's track and from optical flow."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

# All lengths are shares of the picture's larger side, all times the whole clip.
_STILL, _SLIDE, _SWING, _SHAKE = 0.02, 0.16, 0.035, 0.008
_PULSE = 0.16
_SPIN = 0.12
_PAN, _ZOOM = 0.012, 0.008
_FLOW_SIDE = 96


@dataclass(frozen=True)
class Track:
    """Where a subject is; arrays have shape (frames,).

    Attributes:
        x: centre, share of the width.
        y: centre, share of the height, downwards.
        size: square root of the area over its mean.
        turn: radians per frame, clockwise, between this frame and the one before.
        stir: mean motion inside the subject against its centre, share of the larger side per frame.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    size: NDArray[np.float64]
    turn: NDArray[np.float64]
    stir: NDArray[np.float64]


@dataclass(frozen=True)
class CameraMotion:
    """Mean motion of the background per frame.

    Attributes:
        right: share of the larger side; the background moves against the camera.
        down: likewise.
        outward: share by which the background grows.
    """

    right: float
    down: float
    outward: float


def small_flow(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Dense flow between neighbours, (frames - 1, h, w, 2), in shares of the larger side, on small pictures."""
    height, width = frames.shape[1:3]
    factor = _FLOW_SIDE / max(height, width)
    size = (max(16, round(width * factor)), max(16, round(height * factor)))
    grey = [cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA) for frame in frames]
    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flows = [finder.calc(one, two, None) for one, two in pairwise(grey)]
    return np.stack(flows).astype(np.float32) / max(size)


def track_subject(masks: NDArray[np.bool_], flow: NDArray[np.float32]) -> Track | None:
    """The track of a mask; None where it is empty in most frames.

    Args:
        masks: (frames, height, width) bool.
        flow: of :func:`small_flow`.

    Returns:
        The track, interpolated over frames without a mask; or None.
    """
    count, height, width = masks.shape
    areas = masks.reshape(count, -1).sum(1)
    seen = np.flatnonzero(areas > 0.002 * height * width)
    if len(seen) < max(3, count // 2):
        return None
    centres = np.array([[axis.mean() for axis in np.nonzero(masks[index])] for index in seen])
    frames = np.arange(count)
    y = np.interp(frames, seen, (centres[:, 0] + 0.5) / height)
    x = np.interp(frames, seen, (centres[:, 1] + 0.5) / width)
    size = np.interp(frames, seen, np.sqrt(areas[seen]))
    turn, stir = _inner_motion(masks, flow)
    return Track(x, y, size / size.mean(), turn, stir)


def say_motion(track: Track) -> str:
    """One phrase for the whole track: the most telling motion, or "standing still"."""
    time = np.linspace(-0.5, 0.5, len(track.x))
    drift_x, swing_x = _drift_and_swing(time, track.x)
    drift_y, swing_y = _drift_and_swing(time, track.y)
    _, pulse = _drift_and_swing(time, track.size)
    drift, swing = max(abs(drift_x), abs(drift_y)), max(swing_x, swing_y)
    turn = float(track.turn.mean())
    swung = track.x if swing_x > swing_y else track.y
    zigzag = abs(drift_x) > _SLIDE and swing_y > _SWING and _reversals(track.y) > 0.15
    # In order: what stands further up explains what stands below it.
    found = (
        (zigzag, "moving in a zigzag"),
        (drift > _SLIDE and drift > 2.5 * swing, _say_drift(drift_x, drift_y)),
        (swing > _SHAKE and pulse < _PULSE and _reversals(swung) > 0.6, "shaking"),
        (abs(turn) > max(_SPIN, 0.5 * float(np.abs(track.turn).mean())), "spinning around"),
        (min(swing_x, swing_y) > _SWING and _circles(track), "moving in a circle"),
        (pulse > _PULSE and swing < 2 * _SWING, "growing and shrinking"),
        (swing_y > max(_SWING, swing_x), "bouncing up and down"),
        (swing_x > _SWING, "swaying from side to side"),
        (max(drift, swing) > _STILL or float(track.stir.mean()) > _STILL / 4, "moving"),
        (True, "standing still"),
    )
    return next(phrase for holds, phrase in found if holds)


def camera_motion(masks: NDArray[np.bool_], flow: NDArray[np.float32]) -> CameraMotion:
    """Median motion of what is not the subject, near the borders.

    Args:
        masks: (frames, height, width) bool, the subject.
        flow: of :func:`small_flow`.

    Returns:
        Means over all frames in which some border is free; zeros where there is none.
    """
    height, width = flow.shape[1:3]
    rows, columns = np.mgrid[0:height, 0:width]
    right, down = (columns + 0.5) / width - 0.5, (rows + 0.5) / height - 0.5
    border = np.maximum(np.abs(right), np.abs(down)) > 0.3
    steps = []
    for index, step in enumerate(flow):
        free = border & ~_resized(masks[index], (height, width))
        if free.any():
            outward = (step[..., 0] * right + step[..., 1] * down) / (right**2 + down**2)
            steps.append([np.median(step[free, 0]), np.median(step[free, 1]), np.median(outward[free])])
    means = np.mean(steps, axis=0) if steps else np.zeros(3)
    return CameraMotion(float(means[0]), float(means[1]), float(means[2]))


def say_camera(motion: CameraMotion) -> str:
    """One phrase for the camera; it pans against the background's motion."""
    if abs(motion.outward) > _ZOOM and abs(motion.outward) > max(abs(motion.right), abs(motion.down)):
        return "the camera zooms in" if motion.outward > 0 else "the camera zooms out"
    if abs(motion.right) > _PAN and abs(motion.right) >= abs(motion.down):
        return "the camera pans left" if motion.right > 0 else "the camera pans right"
    if abs(motion.down) > _PAN:
        return "the camera tilts up" if motion.down > 0 else "the camera tilts down"
    return "static camera"


def _drift_and_swing(time: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[float, float]:
    """Change along the straight line through the values, and the spread around it."""
    slope, middle = np.polyfit(time, values, 1)
    rest = values - (slope * time + middle)
    return float(slope), float(np.percentile(rest, 90) - np.percentile(rest, 10)) / 2


def _say_drift(right: float, down: float) -> str:
    if abs(right) >= abs(down):
        return "moving to the right" if right > 0 else "moving to the left"
    return "moving down" if down > 0 else "moving up"


def _circles(track: Track) -> bool:
    """Whether the centre goes around always in the same sense."""
    x, y = track.x - track.x.mean(), track.y - track.y.mean()
    turned = np.diff(np.unwrap(np.arctan2(y, x)))
    return bool(abs(turned.sum()) > 0.7 * np.abs(turned).sum() and abs(turned.sum()) > np.pi)


def _reversals(values: NDArray[np.float64]) -> float:
    steps = np.sign(np.diff(values))
    return float((steps[1:] * steps[:-1] < 0).mean()) if len(steps) > 1 else 0.0


def _inner_motion(masks: NDArray[np.bool_], flow: NDArray[np.float32]) -> tuple[NDArray[np.float64], ...]:
    height, width = flow.shape[1:3]
    turns, stirs = np.zeros(len(flow)), np.zeros(len(flow))
    for index, step in enumerate(flow):
        rows, columns = np.nonzero(_resized(masks[index], (height, width)))
        if len(rows) < 8:
            continue
        arm_x, arm_y = (columns - columns.mean()) / max(height, width), (rows - rows.mean()) / max(height, width)
        inner = step[rows, columns] - step[rows, columns].mean(0)
        turns[index] = (arm_x * inner[:, 1] - arm_y * inner[:, 0]).sum() / ((arm_x**2 + arm_y**2).sum() + 1e-9)
        stirs[index] = np.linalg.norm(inner, axis=1).mean()
    return turns, stirs


def _resized(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    small = cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
    return np.asarray(small > 0, np.bool_)
