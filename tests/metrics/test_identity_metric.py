"""The subject's identity: by hand, whatever the masks are made with, and by the published models on their world."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline_lib.features.identity import CropIdentityEncoder
from pipeline_lib.masks.clipseg import ClipSegSegmenter
from pipeline_lib.masks.given import GivenMasks
from pipeline_lib.masks.track import MaskTrack
from pipeline_lib.metrics import measure_identity, score_identity
from pipeline_lib.metrics.identity import similarity_to_mean
from pipeline_lib.pocket.zoo import zoo_folder
from pipeline_lib.world.gizmos import gizmo
from pipeline_lib.world.render import render

FPS = 8.0
GIZMOS = (1, 4)


@pytest.fixture(scope="module")
def square_mask(tmp_path_factory: pytest.TempPathFactory) -> GivenMasks:
    """A segmenter that sees the subject in the middle of every frame."""
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    path = tmp_path_factory.mktemp("masks") / "mask.png"
    Image.fromarray(mask).save(path)
    return GivenMasks(path)


@pytest.fixture(scope="module")
def published() -> tuple[CropIdentityEncoder, ClipSegSegmenter]:
    return CropIdentityEncoder(zoo_folder("identity")), ClipSegSegmenter(zoo_folder("segmenter"))


def test_similarity_is_to_the_mean_subject_over_frames_that_show_one() -> None:
    nobody = [torch.nan, torch.nan]
    r = torch.tensor([[1.0, 0.0], [0.0, 1.0], nobody])
    v = torch.tensor([[1.0, 0.0], nobody, [-0.6, 0.8]])
    value, note = similarity_to_mean(v, r)
    assert value == pytest.approx((1.0 + 0.2) * 0.5**0.5 / 2)
    assert note == "the subject is found in 2 of 3 frames"
    assert similarity_to_mean(r[:1], r[:1]) == (pytest.approx(1), "")
    assert similarity_to_mean(v[1:2], r) == (None, "the subject is found in no frame of the sample")
    assert similarity_to_mean(v, r[2:]) == (None, "the subject is found in no frame of the reference")
    assert similarity_to_mean(v, torch.stack([r[0], -r[0]])).value is None


def test_what_is_around_the_subject_counts_only_where_there_is_no_segmenter(
    moving: np.ndarray, identity_encoder: CropIdentityEncoder, square_mask: GivenMasks
) -> None:
    elsewhere = np.full_like(moving, 7)
    elsewhere[:, 16:48, 16:48] = moving[:, 16:48, 16:48]
    masked = measure_identity([moving], identity_encoder, square_mask, "dog")
    whole = measure_identity([moving], identity_encoder, None, "")
    (at_home, _), (away, seen) = score_identity(moving, masked, FPS), score_identity(elsewhere, masked, FPS)
    assert seen.value == 1
    assert away.value == pytest.approx(at_home.value, abs=1e-6)
    assert away.preprocessing == f"masks of given, {identity_encoder.preprocessing}"
    (at_home, _), (away, seen) = score_identity(moving, whole, FPS), score_identity(elsewhere, whole, FPS)
    assert (seen.value, seen.reason) == (None, "no segmenter looks for the subject")
    assert at_home.value - away.value > 1e-4
    assert away.preprocessing.startswith("no segmenter: whole frames, ")
    assert (away.encoder, away.encoder_digest) == (identity_encoder.name, identity_encoder.digest)


def test_the_references_own_mask_track_goes_before_the_segmenter(
    moving: np.ndarray, identity_encoder: CropIdentityEncoder, square_mask: GivenMasks
) -> None:
    masks = np.zeros(moving.shape[:3], np.float32)
    masks[2:, 8:30, 20:50] = 1
    whose = measure_identity([moving], identity_encoder, square_mask, "dog", [MaskTrack(masks)])
    assert whose is not None
    torch.testing.assert_close(whose.embeddings, identity_encoder.subjects(moving, masks), equal_nan=True)
    assert whose.embeddings.isnan().all(dim=1).tolist() == [True, True, *[False] * 7]
    without = measure_identity([moving], identity_encoder, None, "", [MaskTrack(masks)])
    assert without is not None
    torch.testing.assert_close(without.embeddings, identity_encoder.subjects(moving, None))


def test_without_an_encoder_the_score_says_so(moving: np.ndarray) -> None:
    scores = score_identity(moving, measure_identity([moving], None, None, ""), FPS)
    assert [(score.value, score.reason) for score in scores] == [(None, "no identity encoder was given")] * 2


def test_the_same_gizmo_elsewhere_scores_higher_than_every_other_gizmo(
    published: tuple[CropIdentityEncoder, ClipSegSegmenter],
) -> None:
    for index in GIZMOS:
        whose = measure_identity([render(gizmo(index).reference).frames], *published, "creature")
        scores = {
            other: score_identity(render(gizmo(other).second).frames, whose, FPS)[0].value for other in (index, 2, 7, 9)
        }
        own = scores.pop(index)
        assert own is not None and own > 0.85, own
        assert all(value is not None and value < own - 0.1 for value in scores.values()), (own, scores)


def test_a_sample_that_shows_nobody_has_no_score(published: tuple[CropIdentityEncoder, ClipSegSegmenter]) -> None:
    clip = render(gizmo(1).reference).frames
    whose = measure_identity([clip], *published, "creature")
    score, seen = score_identity(np.full_like(clip, 90), whose, FPS)
    assert (score.value, score.reason) == (None, "the subject is found in no frame of the sample")
    assert seen.value == 0
    clip[4:] = 90
    score, seen = score_identity(clip, whose, FPS)
    assert seen.value == pytest.approx(4 / len(clip))
    assert score.value is not None and score.value > 0.9, "of the frames that show it"
