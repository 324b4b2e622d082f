"""One matrix over all metrics: best on identical input, monotone under corruption, in range, order, determinism."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch

from pipeline_lib.features.flow import dis_flow
from pipeline_lib.features.identity import CropIdentityEncoder
from pipeline_lib.features.image_text import ClipEncoder
from pipeline_lib.metrics import (
    CATALOG,
    identity,
    image_text,
    measure_identity,
    measure_looks,
    measure_reference,
    motion,
    pixels,
    score_identity,
    score_looks,
    score_sample,
    truth,
)
from pipeline_lib.records import Score

FPS = 8.0
LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
KINDS = ("reconstruction", "local")


def _noise(level: float, moving: np.ndarray) -> np.ndarray:
    other = np.random.default_rng(5).integers(0, 256, moving.shape)
    return ((1 - level) * moving + level * other).astype(np.uint8)


def _still(moving: np.ndarray) -> np.ndarray:
    return np.repeat(moving[:1], len(moving), axis=0)


def _slower(level: float, moving: np.ndarray) -> np.ndarray:
    """The glide at fewer pixels per frame: 4 at level 0, none at level 1."""
    return np.stack([_shifted(moving[0], 4 * (1 - level) * index) for index in range(len(moving))])


def _shifted(image: np.ndarray, right: float) -> np.ndarray:
    matrix = np.array([[1, 0, right], [0, 1, 0]], np.float32)
    size = (image.shape[1], image.shape[0])
    return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def _lost(level: float, v: torch.Tensor) -> torch.Tensor:
    """A share of the frames shows nobody."""
    shown = v.clone()
    shown[: round(level * len(v) / (1 + LEVELS[-1]))] = torch.nan
    return shown


def _turned(level: float, towards: torch.Tensor) -> torch.Tensor:
    """Nine unit vectors that leave `towards` by up to 2 radians, each into its own direction."""
    draws = torch.randn(9, len(towards), generator=torch.Generator().manual_seed(0))
    aside = torch.nn.functional.normalize(draws - (draws @ towards)[:, None] * towards, dim=-1)
    angle = torch.tensor(2 * level)
    return torch.cos(angle) * towards + torch.sin(angle) * aside


TEXT = torch.nn.functional.normalize(torch.arange(16.0) - 5, dim=0)


@dataclass(frozen=True)
class Case:
    """How a metric falls from its best as a corruption grows; `best` is its value on identical input."""

    value: Callable[[float, np.ndarray], float | None]
    best: float
    order_matters: bool


def _flow(frames: np.ndarray) -> motion.FlowDegrees:
    return motion.flow_degrees(frames, FPS, dis_flow)


MASK = np.zeros((9, 64, 64), np.float32)
MASK[:, 16:48, 16:48] = 1
PATH = np.stack([32 + 6 * np.sin(np.arange(13)), 30 + np.arange(13) / 2, np.cos(np.arange(13)), np.full(13, 2.7)], 1)
ASKED = {"background": "snow", "light": "night", "accessory": "hat", "colour": "red", "camera": "zoom in"}
CASES = {
    "identity_accuracy": Case(lambda level, m: truth.identity_accuracy(np.arange(10) >= 10 * level).value, 1, False),
    "motion_fidelity": Case(
        lambda level, m: truth.motion_fidelity(PATH[0] + (1 - level) * (PATH - PATH[0]), PATH).value, 1, True
    ),
    "edit_accuracy": Case(
        lambda level, m: (
            truth.edit_accuracy(ASKED, dict.fromkeys(ASKED, "no"), dict(list(ASKED.items())[round(5 * level) :])).value
        ),
        1,
        False,
    ),
    "mse": Case(lambda level, m: pixels.mean_squared_error(_noise(level, m), m).value, 0, True),
    "mse_edit": Case(lambda level, m: pixels.mean_squared_error(_noise(level, m), m).value, 0, True),
    "mse_subject": Case(lambda level, m: pixels.mean_squared_error(_noise(level, m), m, MASK).value, 0, True),
    "temporal_flickering": Case(lambda level, m: pixels.temporal_flickering(_noise(level, _still(m))).value, 1, True),
    "motion_smoothness_linear": Case(
        lambda level, m: pixels.motion_smoothness_linear(_noise(level, _still(m))).value, 1, True
    ),
    "clip_t_aggregated": Case(lambda level, m: image_text.text_aggregated(_turned(level, TEXT), TEXT).value, 1, False),
    "clip_t_mean": Case(lambda level, m: image_text.text_mean(_turned(level, TEXT), TEXT).value, 1, False),
    "subject_identity": Case(
        lambda level, m: identity.similarity_to_mean(_turned(level, TEXT), TEXT.repeat(3, 1)).value, 1, False
    ),
    "subject_found": Case(lambda level, _: identity.share_found(_lost(level, TEXT.repeat(8, 1))).value, 1, True),
    "clip_i": Case(
        lambda level, m: image_text.image_similarity(_turned(level, TEXT), TEXT.repeat(3, 1)).value, 1, False
    ),
    "clip_consistency": Case(lambda level, m: image_text.consistency(_turned(level / 2, TEXT)).value, 1, True),
    "background_consistency": Case(
        lambda level, m: image_text.consistency_with_first(_turned(level / 2, TEXT)).value, 1, True
    ),
    "dino_i": Case(
        lambda level, m: image_text.image_similarity(_turned(level, TEXT), TEXT.repeat(2, 1)).value, 1, False
    ),
    "dino_consistency": Case(lambda level, m: image_text.consistency(_turned(level / 3, TEXT)).value, 1, True),
    "subject_consistency": Case(
        lambda level, m: image_text.consistency_with_first(_turned(level / 3, TEXT)).value, 1, True
    ),
    "dynamic_degree_gap": Case(
        lambda level, m: motion.dynamic_gap(_flow(_slower(level, m)), [_flow(_slower(0, m))]).value, 0, True
    ),
    "dynamic_degree_dis": Case(lambda level, m: motion.dynamic(_flow(_slower(level, m))).value, 1, True),
    "dynamic_degree_dis_mean": Case(lambda level, m: motion.dynamic_mean(_flow(_slower(level, m))).value, 4, True),
}


READ_FROM_FRAMES = [name for name in CASES if CATALOG[name].source != "truth" and name != "subject_found"]
"""The others need a world whose truth is known, or a segmenter: test_truth_reader.py, test_identity_metric.py."""


def test_the_matrix_holds_every_metric() -> None:
    assert set(CASES) == set(CATALOG)


@pytest.mark.parametrize("name", CASES)
def test_best_on_identical_input_and_monotone_under_growing_corruption(name: str, moving: np.ndarray) -> None:
    case = CASES[name]
    values = np.array([case.value(level, moving) for level in LEVELS], float)
    assert values[0] == pytest.approx(case.best, abs=0.4 if name == "dynamic_degree_dis_mean" else 1e-5)
    falling = values if CATALOG[name].direction == "lower" else -values
    assert (np.diff(falling) >= 0).all(), values
    assert falling[-1] > falling[0]


@pytest.mark.parametrize("kind", KINDS)
def test_identical_sample_has_the_best_scores_that_frames_can_give(
    kind: str, moving: np.ndarray, encoder: ClipEncoder, identity_encoder: CropIdentityEncoder
) -> None:
    still = _still(moving)
    scores = _scores(still, still, kind, encoder, identity_encoder, mask=MASK)
    expected = {
        "mse": 0 if kind == "reconstruction" else None,
        "mse_edit": None if kind == "reconstruction" else 0,
        "mse_subject": 0,
        "temporal_flickering": 1,
        "motion_smoothness_linear": 1,
        "subject_identity": 1,
        "clip_i": 1,
        "clip_consistency": 1,
        "background_consistency": 1,
        "dino_i": 1,
        "dino_consistency": 1,
        "subject_consistency": 1,
        "dynamic_degree_gap": 0,
        "dynamic_degree_dis": 0,
        "dynamic_degree_dis_mean": 0,
    }
    for name, value in expected.items():
        assert scores[name].value == (value if value is None else pytest.approx(value, abs=1e-4)), name


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("num_frames", [1, 2, 3, 8])
def test_every_score_is_in_its_range_or_tells_why_it_is_none(
    level: float, num_frames: int, moving: np.ndarray, encoder: ClipEncoder, identity_encoder: CropIdentityEncoder
) -> None:
    for kind in KINDS:
        scores = _scores(_noise(level, moving)[:num_frames], moving, kind, encoder, identity_encoder, mask=MASK)
        assert set(scores) == {*READ_FROM_FRAMES, "subject_found"}
        for score in scores.values():
            if score.value is None:
                assert score.reason
            else:
                assert score.low <= score.value <= score.high
            assert score.frames_per_second == FPS
            assert score.direction == CATALOG[score.metric].direction


def test_clip_similarity_of_frames_falls_as_they_fade_into_another_picture(
    moving: np.ndarray, encoder: ClipEncoder, identity_encoder: CropIdentityEncoder
) -> None:
    still = _still(moving)
    other = np.zeros_like(still)
    other[:, :, :32] = 255
    values = []
    for level in LEVELS:
        faded = ((1 - level) * still + level * other).astype(np.uint8)
        values.append(_scores(faded, still, "local", encoder, identity_encoder)["clip_i"].value)
    assert values[0] == pytest.approx(1, abs=1e-5)
    assert (np.diff(np.array(values, float)) < 0).all(), values


def test_permutation_of_references_changes_nothing(
    moving: np.ndarray, encoder: ClipEncoder, identity_encoder: CropIdentityEncoder
) -> None:
    clips = [moving, np.flip(moving, 2).copy(), _noise(0.5, moving)]
    pictures = [moving[:2], np.flip(moving, 1)[:3].copy()]
    sample = _noise(0.3, moving)
    both = []
    for order in (1, -1):
        reference = measure_reference(clips[::order], encoder, FPS, images=pictures[::order])
        whose = measure_identity([*clips, *pictures][::order], identity_encoder, None, "")
        scores = score_sample(sample, reference, "a dog", "local", encoder, FPS)
        both.append([*scores, *score_identity(sample, whose, FPS)])
    for one, other in zip(*both, strict=True):
        assert one.value == (other.value if other.value is None else pytest.approx(other.value, abs=1e-7)), one.metric
        assert one.reason == other.reason


@pytest.mark.parametrize("name", READ_FROM_FRAMES)
def test_order_of_frames_matters_only_where_it_should(
    name: str, moving: np.ndarray, encoder: ClipEncoder, identity_encoder: CropIdentityEncoder
) -> None:
    order = [4, 0, 7, 2, 8, 1, 6, 3, 5]
    kind = "reconstruction" if name == "mse" else "local"
    straight = _scores(moving, moving, kind, encoder, identity_encoder, mask=MASK)[name].value
    shuffled = _scores(moving[order], moving, kind, encoder, identity_encoder, mask=MASK)[name].value
    assert straight is not None
    assert shuffled is not None
    if not CASES[name].order_matters:
        assert shuffled == pytest.approx(straight, abs=1e-6)
    elif name != "dynamic_degree_dis":  # yes or no: this clip moves in either order
        assert abs(shuffled - straight) > 1e-4


def test_scores_are_deterministic(
    moving: np.ndarray, encoder: ClipEncoder, identity_encoder: CropIdentityEncoder
) -> None:
    first, second = (_scores(_noise(0.3, moving), moving, "local", encoder, identity_encoder) for _ in range(2))
    assert first == second


def _scores(
    sample: np.ndarray,
    clip: np.ndarray,
    kind: str,
    encoder: ClipEncoder,
    identity_encoder: CropIdentityEncoder,
    mask: np.ndarray | None = None,
) -> dict[str, Score]:
    reference = measure_reference([clip], encoder, FPS, mask=mask)
    scores = score_sample(sample, reference, "a dog", kind, encoder, FPS)
    # CLIP's image half stands in for DINO: the arithmetic is one, and knows only the protocol.
    scores += score_looks(sample, measure_looks([clip], encoder), FPS)
    scores += score_identity(sample, measure_identity([clip], identity_encoder, None, ""), FPS)
    return {score.metric: score for score in scores}
