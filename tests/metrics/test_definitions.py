"""Each definition against numbers worked out by hand or by another route."""

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline_lib.errors import InputError
from pipeline_lib.features.flow import dis_flow
from pipeline_lib.features.image_text import ClipEncoder
from pipeline_lib.metrics import Window, image_text, measure_reference, motion, pixels, score_sample
from pipeline_lib.metrics.catalog import Measurement, Trace, to_score
from pipeline_lib.metrics.motion import FlowDegrees


def _flat(*levels: int, side: int = 4) -> np.ndarray:
    return np.stack([np.full((side, side, 3), level, np.uint8) for level in levels])


CLIPS = hnp.arrays(np.uint8, st.tuples(st.integers(3, 7), st.integers(1, 5), st.integers(1, 5), st.just(3)))


def test_mse_is_in_units_of_the_whole_range() -> None:
    assert pixels.mean_squared_error(_flat(0, 0), _flat(255, 255)).value == 1
    assert pixels.mean_squared_error(_flat(0, 51), _flat(0, 0)).value == pytest.approx(0.04 / 2)


def test_mse_of_clips_of_different_length_uses_what_both_have_and_says_so() -> None:
    for longer, shorter in ((_flat(0, 0, 255), _flat(0, 51)), (_flat(0, 51), _flat(0, 0, 255))):
        value, reason = pixels.mean_squared_error(longer, shorter)
        assert value == pytest.approx(0.02)
        assert reason.startswith("the first 2 frames")


def test_mse_of_clips_of_different_size_does_not_exist() -> None:
    value, reason = pixels.mean_squared_error(_flat(0, side=4), _flat(0, side=8))
    assert value is None
    assert "4×4" in reason
    assert "8×8" in reason


def test_mse_in_the_mask_weights_errors_by_the_mask() -> None:
    frames, reference = _flat(0, 0), _flat(0, 0)
    frames[0, 0, 0] = 255
    frames[0, 3, 3] = 51
    mask = np.zeros((2, 4, 4), np.float32)
    mask[0, 3, 3], mask[1, 0, 0] = 0.5, 1.0
    assert pixels.mean_squared_error(frames, reference, mask).value == pytest.approx(0.5 * 0.04 / 1.5)
    assert pixels.mean_squared_error(frames, reference, np.zeros_like(mask)) == (None, "the mask is empty")


@given(CLIPS)
@settings(max_examples=50, deadline=None)
def test_an_all_ones_mask_is_the_plain_error(frames: np.ndarray) -> None:
    reference, ones = np.flip(frames, 0), np.ones(frames.shape[:3], np.float32)
    plain = pixels.mean_squared_error(frames, reference).value
    assert pixels.mean_squared_error(frames, reference, ones).value == pytest.approx(plain, abs=1e-12)


@given(CLIPS)
@settings(max_examples=50, deadline=None)
def test_flicker_is_vbenchs_loop(frames: np.ndarray) -> None:
    differences = [np.mean(cv2.absdiff(frames[index], frames[index + 1])) for index in range(len(frames) - 1)]
    expected = (255.0 - np.mean(np.array(differences)).item()) / 255.0
    assert pixels.temporal_flickering(frames).value == pytest.approx(expected, abs=1e-12)


def test_flicker_by_hand() -> None:
    assert pixels.temporal_flickering(_flat(0, 255, 0)).value == 0
    assert pixels.temporal_flickering(_flat(0, 51)).value == pytest.approx(0.8)
    assert pixels.temporal_flickering(_flat(7)).value is None


@given(CLIPS)
@settings(max_examples=50, deadline=None)
def test_smoothness_is_vbenchs_loop_with_a_mean_in_place_of_amt(frames: np.ndarray) -> None:
    differences = []
    for odd in range(1, len(frames) - 1, 2):
        told = (frames[odd - 1].astype(np.float64) + frames[odd + 1].astype(np.float64)) / 2
        differences.append(np.mean(cv2.absdiff(told.astype(np.uint8), frames[odd])))
    expected = (255.0 - np.mean(np.array(differences))) / 255.0
    assert pixels.motion_smoothness_linear(frames).value == pytest.approx(expected, abs=1e-12)


def test_smoothness_by_hand() -> None:
    assert pixels.motion_smoothness_linear(_flat(0, 10, 20, 30, 40)).value == 1
    assert pixels.motion_smoothness_linear(_flat(0, 255, 0)).value == 0
    assert pixels.motion_smoothness_linear(_flat(0, 1, 3)).value == 1, "1.5 is cut to 1, not rounded to 2"
    assert pixels.motion_smoothness_linear(_flat(0, 9, 18, 200)).value == 1, "the last odd frame has no right neighbour"
    assert pixels.motion_smoothness_linear(_flat(0, 1)) == (None, "fewer than 3 frames")


def test_text_scores_by_hand() -> None:
    v = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    t = torch.tensor([1.0, 0.0])
    assert image_text.text_mean(v, t).value == pytest.approx(0.5)
    assert image_text.text_aggregated(v, t).value == pytest.approx(math.sqrt(0.5))
    assert image_text.text_aggregated(torch.stack([t, -t]), t).value is None


def test_image_scores_by_hand() -> None:
    v = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    r = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    pairs = [1.0, 0.6, 0.0, 0.8, 0.0, -0.8]
    assert image_text.image_similarity(v, r).value == pytest.approx(sum(pairs) / 6)
    assert image_text.consistency(v).value == pytest.approx((0.0 - 1.0) / 2)
    assert image_text.consistency(v[:1]).value is None


def test_vbenchs_consistency_by_hand() -> None:
    """Backwards counts as nothing, not as less than nothing."""
    v = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-0.6, 0.8]])
    previous, first = (0.6, -0.36 + 0.64), (0.6, 0.0)
    assert image_text.consistency_with_first(v).value == pytest.approx((sum(previous) + sum(first)) / 4)
    assert image_text.consistency_with_first(torch.stack([v[0], -v[0]])).value == 0
    assert image_text.consistency_with_first(v[:1]) == (None, "one frame has no neighbour")


@pytest.mark.parametrize(("rate", "step"), [(1, 1), (8, 1), (12, 2), (11.9, 1), (16, 2), (24, 3), (30, 4)])
def test_motion_is_looked_at_about_eight_times_a_second(rate: float, step: int) -> None:
    assert motion.frame_step(rate) == step


def _degrees(*values: float, height: int = 256, width: int = 320, seconds: float = 0.125) -> FlowDegrees:
    return FlowDegrees(values, height, width, 1, seconds)


def test_degrees_are_the_mean_of_the_fastest_twentieth() -> None:
    field = np.zeros((1, 10, 10, 2), np.float32)
    field[0, 0, :5] = [[3, 4], [6, 8], [0, 1], [1, 0], [0, 2]]
    frames = np.zeros((3, 10, 10, 3), np.uint8)
    measured = motion.flow_degrees(frames, 16, lambda looked_at: field if len(looked_at) == 2 else field[:0])
    assert measured.degrees == (pytest.approx((5 + 10 + 1 + 1 + 2) / 5),)
    assert (measured.step, measured.seconds) == (2, 0.125)


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        ((6.1, 6.1, *[0.0] * 5), 1),  # 8 frames: round(2.0) = 2 pairs
        ((6.1, 6.0, *[0.0] * 5), 0),  # the threshold itself is not above
        ((9.0, *[0.0] * 15), 0),  # 17 frames: round(4.25) = 4 pairs
        ((9.0, 9.0, 9.0, 9.0, *[0.0] * 12), 1),
        ((0.0,), 0),  # two frames: still stays still
        ((7.0,), 1),
    ],
)
def test_vbenchs_boolean(degrees: tuple[float, ...], expected: int) -> None:
    assert motion.dynamic(_degrees(*degrees)).value == expected
    half = tuple(degree / 2 for degree in degrees)
    assert motion.dynamic(_degrees(*half, height=128, width=400)).value == expected


def test_the_gap_is_the_distance_to_the_clips_own_mean() -> None:
    assert motion.dynamic_mean(_degrees(1.0, 3.0)).value == 2
    assert motion.dynamic_gap(_degrees(1.0, 3.0), [_degrees(5.0), _degrees(9.0)]).value == 5
    assert motion.dynamic_gap(_degrees(1.0), []).value is None
    assert motion.dynamic_gap(_degrees(), [_degrees(5.0)]).value is None
    assert "sizes" in motion.dynamic_gap(_degrees(1.0), [_degrees(1.0, width=256)]).reason
    assert "rates" in motion.dynamic_gap(_degrees(1.0), [_degrees(1.0, seconds=0.1)]).reason


def test_a_number_that_is_not_finite_does_not_reach_a_score() -> None:
    score = to_score("mse", Measurement(float("nan")), Trace())
    assert score.value is None
    assert "nan" in score.reason


def test_a_score_can_be_traced(moving: np.ndarray, encoder: ClipEncoder) -> None:
    scores = {score.metric: score for score in score_sample(moving, moving, "a {subject} dog", "local", encoder, 8)}
    embedded = scores["clip_i"]
    assert (embedded.encoder, embedded.encoder_digest) == (encoder.name, encoder.digest)
    assert embedded.preprocessing == encoder.preprocessing
    flow = scores["dynamic_degree_gap"]
    assert flow.encoder.startswith("opencv-dis")
    assert flow.preprocessing == "every 1. frame, grey, ×2"


def test_placeholders_do_not_reach_the_text_encoder(moving: np.ndarray, encoder: ClipEncoder) -> None:
    with_it, without = (
        {score.metric: score.value for score in score_sample(moving, moving, text, "local", encoder, 8)}
        for text in ("a <gizmo> dog", "a dog")
    )
    assert with_it == without


def test_a_prompt_that_is_too_long_is_scored_with_a_note(moving: np.ndarray, encoder: ClipEncoder) -> None:
    scores = {score.metric: score for score in score_sample(moving, moving, "dog " * 90, "local", encoder, 8)}
    assert scores["clip_t_mean"].value is not None
    assert "cut off" in scores["clip_t_mean"].reason


def test_what_cannot_be_measured_is_none_with_its_reason(moving: np.ndarray, encoder: ClipEncoder) -> None:
    picture = moving[:1]
    scores = {score.metric: score for score in score_sample(picture, moving, " ", "user", encoder, 8)}
    reasons = {name: score.reason for name, score in scores.items() if score.value is None}
    assert reasons == {
        "mse": "only for the reconstruction prompt",
        "mse_subject": "no mask track",
        "temporal_flickering": "one frame has no neighbour",
        "motion_smoothness_linear": "fewer than 3 frames",
        "clip_t_aggregated": "no prompt",
        "clip_t_mean": "no prompt",
        "clip_consistency": "one frame has no neighbour",
        "background_consistency": "one frame has no neighbour",
        "dynamic_degree_dis": "fewer than two frames to compare",
        "dynamic_degree_dis_mean": "fewer than two frames to compare",
        "dynamic_degree_gap": "fewer than two frames to compare",
    }
    unencoded = {score.metric: score for score in score_sample(moving, moving, "a dog", "local", None, 8)}
    assert unencoded["clip_i"].reason == "no image-text encoder was given"
    assert unencoded["mse_edit"].value == 0


def test_images_tell_looks_but_neither_motion_nor_pixels(moving: np.ndarray, encoder: ClipEncoder) -> None:
    reference = measure_reference([], encoder, 0, images=[moving[:2]])
    scores = {score.metric: score for score in score_sample(moving, reference, "a dog", "local", encoder, 8)}
    assert scores["clip_i"].value is not None
    assert scores["mse_edit"].reason == "only pictures were given: there is no clip to align with"
    rebuilt = score_sample(moving[:1], reference, "a dog", "reconstruction", encoder, 8)
    assert {score.metric for score in rebuilt if score.value is not None} == {
        "clip_i",
        "clip_t_aggregated",
        "clip_t_mean",
    }
    assert scores["dynamic_degree_gap"].reason.startswith("no reference clip")


def test_the_nearest_training_window_of_any_clip_is_the_one_that_counts(moving: np.ndarray) -> None:
    """A model that learned the end of a long clip, or the second of two, has reconstructed it."""
    other = np.flip(moving, 2).copy()
    windows = [
        Window(clip=0, start=0, stop=5, name="window 1 of glide"),
        Window(clip=0, start=4, stop=9, name="window 2 of glide"),
        Window(clip=1, start=0, stop=5, name="mirror"),
    ]
    reference = measure_reference([moving, other], None, 8, windows=windows)
    for sample, name in ((moving[4:], "window 2 of glide"), (other[:5], "mirror"), (moving[:5], "window 1 of glide")):
        scores = {score.metric: score for score in score_sample(sample, reference, "", "reconstruction", None, 8)}
        assert (scores["mse"].value, scores["mse"].reason) == (0, f"nearest is {name}")
    grey = np.full_like(moving[:5], 128)
    value = {s.metric: s.value for s in score_sample(grey, reference, "", "reconstruction", None, 8)}["mse"]
    by_hand = [float((((grey - clip.astype(float)) / 255) ** 2).mean()) for clip in (moving[:5], moving[4:], other[:5])]
    assert value == pytest.approx(min(by_hand), abs=1e-12)


def test_the_subjects_error_is_inside_the_mask_of_the_window(moving: np.ndarray) -> None:
    mask = np.zeros(moving.shape[:3], np.float32)
    mask[:5, :32] = mask[5:, 32:] = 1
    windows = [Window(clip=0, start=0, stop=4), Window(clip=0, start=5, stop=9)]
    sample = moving[5:].copy()
    sample[:, :32] = 0
    reference = measure_reference([moving], None, 8, mask=mask, windows=windows)
    scores = {score.metric: score for score in score_sample(sample, reference, "", "local", None, 8)}
    assert scores["mse_subject"].value == 0, "wrong only where the second window has no subject"
    assert scores["mse_edit"].value > 0
    assert scores["mse_subject"].reason == "nearest of 2 windows"


def test_motion_is_compared_with_the_mean_over_windows(moving: np.ndarray) -> None:
    half_still = np.concatenate([moving, np.repeat(moving[-1:], 9, axis=0)])
    windows = [Window(clip=0, start=0, stop=9), Window(clip=0, start=9, stop=18)]
    still = half_still[9:]
    gaps = []
    for sample in (moving, still):
        reference = measure_reference([half_still], None, 8, windows=windows)
        scores = {score.metric: score.value for score in score_sample(sample, reference, "", "local", None, 8)}
        gaps.append(scores["dynamic_degree_gap"])
    speed = motion.dynamic_mean(motion.flow_degrees(moving, 8, dis_flow)).value
    assert gaps == [pytest.approx(speed / 2, abs=1e-9), pytest.approx(speed / 2, abs=1e-9)]


def test_frames_at_another_rate_do_not_align(moving: np.ndarray, encoder: ClipEncoder) -> None:
    reference = measure_reference([moving], None, 16)
    scores = {score.metric: score for score in score_sample(moving, reference, "a dog", "local", None, 8)}
    assert "8, reference 16 frames per second" in scores["mse_edit"].reason


def test_wrong_references_are_refused(moving: np.ndarray, encoder: ClipEncoder) -> None:
    with pytest.raises(InputError, match="no reference frames"):
        measure_reference([], encoder, 8)
    with pytest.raises(InputError, match="mask track does not fit"):
        measure_reference([moving], encoder, 8, mask=np.ones((2, 64, 64), np.float32))
    with pytest.raises(InputError, match="different encoders"):
        score_sample(moving, measure_reference([moving], None, 8), "a dog", "local", encoder, 8)
