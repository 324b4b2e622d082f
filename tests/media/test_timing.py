"""Re-timing, fitting and tone mapping against independent truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.errors import MediaError
from pipeline_lib.media.fitting import fit_size
from pipeline_lib.media.timing import MAX_SLOWDOWN, retime
from pipeline_lib.media.tonemap import hlg_to_light, pq_to_light, roll_off, tone_map
from pipeline_lib.records import FrameRules

RULES = FrameRules(height=64, width=64, num_frames=13, frames_per_second=8, frame_multiple=1)


@given(st.integers(20, 200), st.floats(5, 120), st.integers(0, 2**31))
def test_picks_are_nearest(count: int, rate: float, seed: int) -> None:
    jitter = np.random.default_rng(seed).uniform(0.3, 1.7, count - 1) / rate
    times = np.concatenate([[0.0], np.cumsum(jitter)])
    seconds = times[-1] + 1 / rate
    if seconds * 8 < 13:
        return
    picks = retime(times, 1 / rate, RULES, "clip", 10_000).picks
    grid = np.arange(len(picks)) / 8
    assert len(picks) == int(seconds * 8 + 0.02)
    assert (np.diff(picks) >= 0).all()
    best = np.abs(times[:, None] - grid).min(0)
    assert np.abs(times[picks] - grid) == pytest.approx(best, abs=2e-6)


@pytest.mark.parametrize("rate", [8, 12, 23.976, 24, 25, 29.97, 30, 50, 60])
def test_a_clip_of_exactly_enough_is_not_slowed(rate: float) -> None:
    times = np.arange(round(13 / 8 * rate + 0.4999)) / rate
    timing = retime(times, 1 / rate, RULES, "clip", 100)
    assert len(timing.picks) == 13
    assert not any("slowed" in note for note in timing.notes)


def test_own_rate_keeps_every_frame() -> None:
    timing = retime(np.arange(20) / 8, 1 / 8, RULES, "clip", 100)
    assert timing.picks.tolist() == list(range(20))
    assert timing.notes == ()


@given(st.integers(1, 60), st.sampled_from([10.0, 24.0, 60.0]), st.integers(1, 4), st.integers(2, 12))
def test_slow_down_has_bounds_and_its_advice_works(count: int, rate: float, multiple: int, k: int) -> None:
    rules = RULES.model_copy(update={"num_frames": 1 + k * multiple, "frame_multiple": multiple})
    times = np.arange(count) / rate
    try:
        timing = retime(times, 1 / rate, rules, "clip", 1000)
    except MediaError as error:
        assert count / rate < rules.num_frames / 8 / MAX_SLOWDOWN or count < rules.num_frames / 2
        if "set num_frames to" in error.fix:
            allowed = int(error.fix.split("set num_frames to ")[1].split()[0])
            assert (allowed - 1) % multiple == 0
            smaller = rules.model_copy(update={"num_frames": allowed})
            assert len(retime(times, 1 / rate, smaller, "clip", 1000).picks) >= allowed
    else:
        assert len(timing.picks) >= rules.num_frames
        assert timing.picks.max() < count


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([16, 64, 480]), st.sampled_from([16, 64, 832]))
def test_fit_covers_and_keeps_the_shape(source_height: int, source_width: int, height: int, width: int) -> None:
    fit = fit_size(source_height, source_width, height, width)
    assert fit.scaled_height >= height
    assert fit.scaled_width >= width
    assert fit.scaled_height == height or fit.scaled_width == width
    assert abs(fit.scaled_height - source_height * fit.factor) <= 0.5 + 1e-6
    assert abs(fit.scaled_width - source_width * fit.factor) <= 0.5 + 1e-6


def test_curves_have_the_published_values() -> None:
    """BT.2408, table 1: diffuse white, 203 cd/m2, is 58 % PQ and 75 % HLG; 100 cd/m2 is 51 % PQ."""
    pq = pq_to_light(np.array([0.0, 0.508078, 0.5806889, 0.7518271, 1.0], np.float32))
    assert pq == pytest.approx([0, 100, 203, 1000, 10_000], rel=2e-3, abs=1e-3)
    hlg = hlg_to_light(np.array([[0.0] * 3, [0.75] * 3, [1.0] * 3], np.float32))[:, 0]
    assert hlg == pytest.approx([0, 203, 1000], rel=5e-3, abs=1e-3)


def test_roll_off_keeps_shadows_and_never_falls() -> None:
    light = np.linspace(0, 1000 / 203, 500, dtype=np.float32)
    out = roll_off(light)
    assert np.array_equal(out[light < 0.6], light[light < 0.6])
    assert (np.diff(out) > 0).all()
    assert out[-1] == pytest.approx(1, abs=1e-4)


def test_neutral_grey_stays_neutral() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None, :, None].repeat(3, 2)
    for transfer in (16, 18):
        out = tone_map(ramp, transfer).astype(int)
        assert np.ptp(out, axis=-1).max() <= 1
        assert (np.diff(out[0, :, 0]) >= 0).all()
