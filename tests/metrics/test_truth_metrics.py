"""The truth metrics' arithmetic, against closed forms and the invariants of every metric."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.metrics import truth

FRAMES = 13


def wave(amplitude: float = 6.0, phase: float = 0.0, cycles: float = 1.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * (cycles * np.arange(FRAMES) / 12 + phase))).astype(np.float32)


def track(x: np.ndarray, angle: np.ndarray | None = None) -> np.ndarray:
    still = np.zeros(FRAMES, dtype=np.float32)
    return np.stack([32 + x, still + 30, still if angle is None else angle, still + 2.7], axis=1).astype(np.float32)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0, -1.0, 3.0])
def test_concordance_of_a_scaled_motion(share: float) -> None:
    expected = 2 * share / (1 + share**2)
    assert truth.concordance(share * wave(), wave()) == pytest.approx(expected, abs=1e-6)


def test_concordance_ignores_the_place() -> None:
    assert truth.concordance(wave() + 20, wave() - 5) == pytest.approx(1.0)


def test_a_still_sample_has_no_concordance() -> None:
    assert truth.concordance(np.full(FRAMES, 7.0), wave()) == 0.0
    assert truth.concordance(np.full(FRAMES, 7.0), np.full(FRAMES, 2.0)) == 0.0


def test_identical_motion_is_best_and_damage_is_worse() -> None:
    reference = track(wave(), wave(1.0))
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(reference.shape).astype(np.float32) * [4.0, 0.0, 0.6, 0.0]
    values = [truth.motion_fidelity(reference + level * noise, reference).value for level in (0.0, 0.5, 1.0, 2.0)]
    assert values[0] == pytest.approx(1.0)
    assert values == sorted(values, reverse=True)
    assert values[3] < 0.7


def test_a_late_sample_is_shifted_back() -> None:
    long = 6 * np.sin(np.arange(FRAMES + 4) * 0.9 + 0.05 * np.arange(FRAMES + 4) ** 2)
    early, late, later = (
        long[start : start + FRAMES].astype(np.float32) for start in (0, truth.MOST_SHIFT, truth.MOST_SHIFT + 2)
    )
    assert truth.motion_fidelity(track(late), track(early)).value == pytest.approx(1.0, abs=1e-5)
    assert truth.motion_fidelity(track(early), track(late)).value == pytest.approx(1.0, abs=1e-5)
    assert (truth.motion_fidelity(track(later), track(early)).value or 0.0) < 0.9


def test_one_shift_is_shared_by_all_channels() -> None:
    x, y = wave(cycles=1.0), wave(cycles=1.0, phase=0.25)
    reference = track(x)
    reference[:, 1] += y
    torn = track(np.roll(x, 3))
    torn[:, 1] += np.roll(y, -3)
    assert truth.motion_fidelity(torn, reference).value < 0.8


def test_angles_are_unwrapped_on_both_sides() -> None:
    turning = np.linspace(0, 3 * np.pi, FRAMES).astype(np.float32)
    wrapped = np.angle(np.exp(1j * turning)).astype(np.float32)
    assert truth.motion_fidelity(track(wave(0.0), wrapped), track(wave(0.0), turning)).value == pytest.approx(1.0)


def test_a_turn_that_cannot_be_seen_is_left_out() -> None:
    reference = track(wave(), wave(1.0))
    upright = track(wave())
    assert truth.motion_fidelity(upright, reference, with_angle=False).value == pytest.approx(1.0)
    assert truth.motion_fidelity(upright, reference).value == pytest.approx(0.5, abs=0.05)


def test_which_channels_move() -> None:
    small = track(np.tile([0.9, -0.9], 7)[:FRAMES].astype(np.float32))
    assert truth.moving_channels(small, True) == ()
    assert truth.moving_channels(track(wave(2.0), wave(0.2)), True) == (0, 2)
    assert truth.motion_fidelity(small, small) == (None, "the reference does not move")


def test_lost_frames_are_filled_and_lost_subjects_score_nothing() -> None:
    reference = track(wave(cycles=0.5))
    holed = reference.copy()
    holed[[2, 7, 12]] = np.nan
    assert truth.motion_fidelity(holed, reference).value > 0.95
    holed[4:] = np.nan
    assert truth.motion_fidelity(holed, reference) == (0.0, "the subject was lost")
    assert truth.motion_fidelity(None, reference).value == 0.0


def test_other_lengths_and_single_frames_have_no_motion() -> None:
    reference = track(wave())
    assert truth.motion_fidelity(reference[:9], reference).value is None
    assert truth.motion_fidelity(reference[:1], reference[:1]).value is None


@given(st.integers(0, 2**32 - 1))
def test_motion_fidelity_stays_in_its_range(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sample, reference = rng.standard_normal((2, FRAMES, 4)).astype(np.float32) * 8
    value = truth.motion_fidelity(sample, reference).value
    assert value is not None
    assert -1.0 <= value <= 1.0
    assert value == truth.motion_fidelity(sample, reference).value


def test_identity_is_the_share_of_frames() -> None:
    assert truth.identity_accuracy(np.array([True, False, True, True])).value == 0.75
    assert truth.identity_accuracy(np.zeros(0, dtype=bool)).value is None


def test_only_changes_count_as_edits() -> None:
    reference = {"background": "snow", "light": "day", "accessory": "none"}
    asked = {"background": "snow", "light": "night", "accessory": "hat"}
    assert truth.edit_accuracy(asked, reference, asked).value == 1.0
    assert truth.edit_accuracy(asked, reference, reference).value == 0.0
    assert truth.edit_accuracy(asked, reference, {"light": "night"}).value == 0.5
    assert truth.edit_accuracy({"background": "snow"}, reference, reference).value is None


def test_mask_overlap() -> None:
    left, right = np.zeros((2, 3, 4, 4), dtype=bool)
    left[:, :, :3] = True
    right[:, :, 1:] = True
    assert truth.mask_iou(left, right).value == pytest.approx(0.5)
    assert truth.mask_iou(left, left).value == 1.0
    assert truth.mask_iou(left & False, right & False).value is None
