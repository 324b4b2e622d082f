"""Scores by an image encoder alone: whether the frames show the reference's subject, and stay the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pipeline_lib.features.encoders import FrameEncoder
from pipeline_lib.metrics import image_text
from pipeline_lib.metrics.catalog import Measurement, Trace, to_score
from pipeline_lib.metrics.pixels import Frames
from pipeline_lib.records import Score

NO_ENCODER = "no image encoder was given"


@dataclass(frozen=True, kw_only=True)
class Looks:
    """A reference as an image encoder sees it; made by :func:`measure_looks`.

    Attributes:
        encoder: who looks; the same one looks at the samples.
        embeddings: (R, d) of all reference frames.
    """

    encoder: FrameEncoder
    embeddings: torch.Tensor


def measure_looks(reference: Sequence[Frames], encoder: FrameEncoder | None) -> Looks | None:
    """Run an image encoder once over the reference.

    Args:
        reference: clips and sets of images, each (T, H, W, 3); their order is of no meaning.
        encoder: DINO or one in its role; None leaves its scores out.

    Returns:
        What samples are compared with; None without an encoder.
    """
    if encoder is None:
        return None
    return Looks(encoder=encoder, embeddings=torch.cat([encoder.frames(frames) for frames in reference]))


def score_looks(frames: Frames, looks: Looks | None, frames_per_second: float) -> list[Score]:
    """The image encoder's scores of one sample.

    Args:
        frames: (T, H, W, 3).
        looks: from :func:`measure_looks`.
        frames_per_second: of the sample.

    Returns:
        `dino_i`, `dino_consistency` and `subject_consistency`, with None and a reason where there is no value.
    """
    names = ("dino_i", "dino_consistency", "subject_consistency")
    if looks is None:
        trace = Trace(frames_per_second=frames_per_second)
        return [to_score(name, Measurement(None, NO_ENCODER), trace) for name in names]
    trace = Trace(
        encoder=looks.encoder.name,
        encoder_digest=looks.encoder.digest,
        preprocessing=looks.encoder.preprocessing,
        frames_per_second=frames_per_second,
    )
    v = looks.encoder.frames(frames)
    similarity = image_text.image_similarity(v, looks.embeddings)
    values = (similarity, image_text.consistency(v), image_text.consistency_with_first(v))
    return [to_score(name, value, trace) for name, value in zip(names, values, strict=True)]
