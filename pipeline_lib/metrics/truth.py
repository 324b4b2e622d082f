"""Arithmetic of the truth metrics: what is compared once a judge has read a sample.

Pure functions of arrays and words; who reads the sample is no matter of this file (in the pocket
world it is ``pipeline_lib.pocket.judge``).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from pipeline_lib.metrics.catalog import Measurement

Array = npt.NDArray[np.float32]

MOST_SHIFT = 1
"""Frames by which a sample's motion may run early or late: of 13, each more lets unrelated motions fit better (0.14
with one frame, 0.22 with two, 0.30 with four, 0.01 with none; mean over the gizmos, as the judge reads them)."""
CHANNELS = ("x", "y", "angle", "scale")
"""Columns of a track: centre in pixels, clockwise angle in radians, log of the half height in pixels."""
MOVING = {"x": 1.0, "y": 1.0, "angle": float(np.deg2rad(5.0)), "scale": 0.03}
"""A channel moves when the reference's standard deviation is above this: 1 px, 5 degrees, 3 %."""
_MOST_LOST = 0.5


def concordance(sample: Array, reference: Array) -> float:
    """Lin's concordance of two sequences after their means are removed.

    ``2 s_xy / (s_x² + s_y²)``: 1 for equal motion, 0.2 for the same motion at a tenth of its
    size, 0 for no motion, -1 for the opposite one.

    Args:
        sample: shape (T,).
        reference: shape (T,).

    Returns:
        A value in [-1, 1]; 0 when neither moves.
    """
    first, second = sample - sample.mean(), reference - reference.mean()
    both = float((first**2).sum() + (second**2).sum())
    return 2.0 * float((first * second).sum()) / both if both > 0.0 else 0.0


def complete_track(track: Array) -> Array | None:
    """Unwrap the angle and fill lost frames by interpolation.

    Args:
        track: shape (T, 4), columns as in ``CHANNELS``, NaN in lost frames.

    Returns:
        Same shape without NaN, or None when more than half of the frames are lost.
    """
    found = ~np.isnan(track).any(axis=1)
    if found.mean() < _MOST_LOST:
        return None
    time = np.arange(len(track))
    whole = track.copy()
    whole[found, 2] = np.unwrap(track[found, 2])
    for column in range(track.shape[1]):
        whole[:, column] = np.interp(time, time[found], whole[found, column])
    return whole


def moving_channels(reference: Array, with_angle: bool) -> tuple[int, ...]:
    """Columns of a reference track that move.

    Args:
        reference: shape (T, 4), angle unwrapped.
        with_angle: whether a turn of the subject can be seen.

    Returns:
        Indices into ``CHANNELS``.
    """
    spread = reference.std(axis=0)
    return tuple(
        column
        for column, name in enumerate(CHANNELS)
        if spread[column] > MOVING[name] and (with_angle or name != "angle")
    )


def motion_fidelity(sample: Array | None, reference: Array, *, with_angle: bool = True) -> Measurement:
    """Whether a sample's subject moves as the reference's: mean concordance of the moving channels.

    One shift of at most ``MOST_SHIFT`` frames, the best one, is shared by all channels.

    Args:
        sample: track, shape (T, 4), NaN in lost frames; None when no subject was found.
        reference: track of the same length without lost frames, shape (T, 4).
        with_angle: False for a subject that looks the same when turned.

    Returns:
        A value in [-1, 1]: 0 for a lost or unmoving subject; None when the reference does not move,
        when there is one frame only, or when the lengths differ.
    """
    if len(reference) < 2:
        return Measurement(None, "one frame has no motion")
    if sample is not None and len(sample) != len(reference):
        return Measurement(None, f"sample has {len(sample)} frames, reference {len(reference)}")
    still = reference.copy()
    still[:, 2] = np.unwrap(still[:, 2])
    columns = moving_channels(still, with_angle)
    if not columns:
        return Measurement(None, "the reference does not move")
    whole = None if sample is None else complete_track(sample)
    if whole is None:
        return Measurement(0.0, "the subject was lost")
    most = min(MOST_SHIFT, len(reference) - 2)
    return Measurement(max(_shifted(whole, still, columns, shift) for shift in range(-most, most + 1)))


def _shifted(sample: Array, reference: Array, columns: tuple[int, ...], shift: int) -> float:
    count = len(reference) - abs(shift)
    first = sample[max(0, shift) :][:count]
    second = reference[max(0, -shift) :][:count]
    return float(np.mean([concordance(first[:, column], second[:, column]) for column in columns]))


def identity_accuracy(named: npt.NDArray[np.bool_]) -> Measurement:
    """Share of frames in which the subject was named as the concept.

    Args:
        named: shape (T,); False where another name, no name or no subject was given.

    Returns:
        A value in [0, 1]; None without frames.
    """
    return Measurement(float(named.mean())) if len(named) else Measurement(None, "no frames")


def edit_accuracy(asked: Mapping[str, str], reference: Mapping[str, str], read: Mapping[str, str]) -> Measurement:
    """Share of the asked-for changes that are read in the sample.

    Args:
        asked: words that the prompt asks for, by attribute.
        reference: words of the reference clip, at least for the attributes asked for.
        read: words read in the sample; an attribute that could not be read is left out, and wrong.

    Returns:
        A value in [0, 1]; None when the prompt asks for nothing that differs from the reference.
    """
    changed = [name for name, word in asked.items() if reference[name] != word]
    if not changed:
        return Measurement(None, "nothing asked for differs from the reference")
    return Measurement(sum(read.get(name) == asked[name] for name in changed) / len(changed))


def mask_iou(told: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> Measurement:
    """Intersection over union of two mask tracks.

    Args:
        told: shape (T, H, W).
        truth: same shape.

    Returns:
        A value in [0, 1] over all frames together; None when both are empty.
    """
    union = int((told | truth).sum())
    return Measurement(int((told & truth).sum()) / union) if union else Measurement(None, "both masks are empty")
