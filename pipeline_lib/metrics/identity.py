"""Score by an identity encoder: whether the subject is the reference's, wherever it is (ArcFace's role)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline_lib.errors import InputError
from pipeline_lib.features.encoders import IdentityEncoder
from pipeline_lib.masks.segmenter import Segmenter
from pipeline_lib.masks.track import MaskTrack
from pipeline_lib.metrics.catalog import Measurement, Trace, to_score
from pipeline_lib.metrics.pixels import Frames
from pipeline_lib.records import Score

NAMES = ("subject_identity", "subject_found")
NO_ENCODER = "no identity encoder was given"


@dataclass(frozen=True, kw_only=True)
class SubjectIdentity:
    """Who the reference's subject is; made by :func:`measure_identity`.

    Attributes:
        encoder: who looks; the same one looks at the samples.
        segmenter: finds the subject in samples; None takes whole frames.
        noun: what it looks for.
        embeddings: (R, d) of all reference frames, NaN in those without the subject.
    """

    encoder: IdentityEncoder
    segmenter: Segmenter | None
    noun: str
    embeddings: torch.Tensor


def measure_identity(
    reference: Sequence[Frames],
    encoder: IdentityEncoder | None,
    segmenter: Segmenter | None,
    noun: str,
    masks: Sequence[MaskTrack] = (),
) -> SubjectIdentity | None:
    """Run an identity encoder once over the reference's subject.

    Args:
        reference: clips and sets of images, each (T, H, W, 3); their order is of no meaning.
        encoder: ArcFace or one in its role; None leaves its score out.
        segmenter: finds the subject in samples; None takes whole frames, of the reference too, whatever its masks.
        noun: what the segmenter looks for.
        masks: a track for each of the reference; empty: the segmenter's.

    Returns:
        What samples are compared with; None without an encoder.
    """
    if encoder is None:
        return None
    tracks: Sequence[MaskTrack | None] = masks or [None] * len(reference)
    pairs = zip(reference, tracks, strict=True)
    subjects = [encoder.subjects(frames, _masks(frames, segmenter, noun, track)) for frames, track in pairs]
    return SubjectIdentity(encoder=encoder, segmenter=segmenter, noun=noun, embeddings=torch.cat(subjects))


def score_identity(frames: Frames, identity: SubjectIdentity | None, frames_per_second: float) -> list[Score]:
    """The identity encoder's score of one sample.

    Args:
        frames: (T, H, W, 3).
        identity: from :func:`measure_identity`.
        frames_per_second: of the sample.

    Returns:
        `subject_identity` and `subject_found`, with None and a reason where there is no value.
    """
    if identity is None:
        trace = Trace(frames_per_second=frames_per_second)
        return [to_score(name, Measurement(None, NO_ENCODER), trace) for name in NAMES]
    found = f"masks of {identity.segmenter.name}" if identity.segmenter else "no segmenter: whole frames"
    trace = Trace(
        encoder=identity.encoder.name,
        encoder_digest=identity.encoder.digest,
        preprocessing=f"{found}, {identity.encoder.preprocessing}",
        frames_per_second=frames_per_second,
    )
    v = identity.encoder.subjects(frames, _masks(frames, identity.segmenter, identity.noun))
    seen = share_found(v) if identity.segmenter else Measurement(None, "no segmenter looks for the subject")
    values = (similarity_to_mean(v, identity.embeddings), seen)
    return [to_score(name, value, trace) for name, value in zip(NAMES, values, strict=True)]


def similarity_to_mean(v: torch.Tensor, r: torch.Tensor) -> Measurement:
    """mean_i cos(v_i, mean_j r_j), over frames that show the subject: Set-and-Sequence's ID.

    Args:
        v: (T, d), the sample's subjects: unit vectors, NaN in frames without one.
        r: (R, d), the reference's, likewise.

    Returns:
        The mean, with a note where frames were left out.
    """
    seen, known = (rows[~rows.isnan().any(dim=1)].double() for rows in (v, r))
    if not len(seen) or not len(known):
        return Measurement(None, f"the subject is found in no frame of the {'reference' if len(seen) else 'sample'}")
    mean = known.mean(0)
    if mean.norm() < 1e-6:
        return Measurement(None, "the mean subject of the reference is zero, so it has no angle")
    note = "" if len(seen) == len(v) else f"the subject is found in {len(seen)} of {len(v)} frames"
    return Measurement(float((seen @ (mean / mean.norm())).mean()), note)


def share_found(v: torch.Tensor) -> Measurement:
    """Share of frames that show the subject: the detection rate.

    Args:
        v: (T, d), the sample's subjects, NaN in frames without one; T ≥ 1.

    Returns:
        The share.
    """
    return Measurement(float((~v.isnan().any(dim=1)).double().mean()))


def _masks(
    frames: Frames, segmenter: Segmenter | None, noun: str, track: MaskTrack | None = None
) -> NDArray[np.float32] | None:
    """The track's masks, else the segmenter's; empty in frames where the subject covers too little to be seen."""
    if segmenter is None:
        return None
    try:
        track = track or segmenter.segment(frames, noun)
    except InputError:  # the seam's word for: in no frame
        return np.zeros(frames.shape[:3], np.float32)
    masks = track.masks.copy()
    masks[list(track.empty_frames())] = 0
    return masks
