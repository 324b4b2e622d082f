"""One sample against its reference: every encoder runs once over the frames, the rest is arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline_lib.errors import InputError
from pipeline_lib.features.encoders import ImageTextEncoder
from pipeline_lib.features.flow import DIS_NAME, dis_flow, upsampling_factor
from pipeline_lib.features.image_text import plain_prompt
from pipeline_lib.metrics import image_text, motion, pixels
from pipeline_lib.metrics.catalog import Measurement, Trace, to_score
from pipeline_lib.metrics.pixels import Frames
from pipeline_lib.metrics.windows import NO_CLIP, Window, nearest_error, whole_clips
from pipeline_lib.records import Score

NO_ENCODER = "no image-text encoder was given"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What samples are compared with, measured once; made by :func:`measure_reference`.

    Attributes:
        clips: the subject's clips, each uint8 (T, H, W, 3); order is of no meaning.
        windows: the stretches of them that training saw: pixels and motion are compared with these.
        frames_per_second: of all clips.
        mask: (T, H, W) in [0, 1], the subject in the only clip; None without a mask track.
        embeddings: (R, d) of all clips' frames and all images; None without an encoder.
        encoder: name and digest of the encoder that made them.
        flow: one per window.
    """

    clips: tuple[Frames, ...]
    windows: tuple[Window, ...]
    frames_per_second: float
    mask: NDArray[np.float32] | None
    embeddings: torch.Tensor | None
    encoder: tuple[str, str]
    flow: tuple[motion.FlowDegrees, ...]


def measure_reference(
    clips: Sequence[Frames],
    encoder: ImageTextEncoder | None,
    frames_per_second: float,
    *,
    images: Sequence[Frames] = (),
    mask: NDArray[np.float32] | None = None,
    windows: Sequence[Window] = (),
) -> Reference:
    """Run every encoder once over the reference.

    Args:
        clips: videos of the subject, each (T, H, W, 3).
        encoder: an image-text encoder; None leaves its scores out, with that reason.
        frames_per_second: of the clips.
        images: unordered pictures of the subject, each set (N, H, W, 3); they tell looks, not motion.
        mask: (T, H, W) in [0, 1], where the subject is in the only clip.
        windows: the stretches of the clips that training saw; empty takes each clip as a whole.

    Returns:
        What every sample is compared with.

    Raises:
        InputError: there is neither clip nor image, or the mask does not belong to one clip.
    """
    clips = tuple(clips)
    pictures = [frames for frames in (*clips, *images) if len(frames)]
    if not pictures:
        raise InputError("no reference frames to score against", fix="give the subject's clip or images")
    if mask is not None and (len(clips) != 1 or mask.shape != clips[0].shape[:3]):
        got = f"{mask.shape} for {[clip.shape[:3] for clip in clips]}"
        raise InputError("the mask track does not fit the reference", got=got, expected="one clip, one mask per frame")
    embeddings = torch.cat([encoder.frames(frames) for frames in pictures]) if encoder else None
    windows = tuple(windows) or whole_clips(clips)
    stretches = [clips[window.clip][window.place] for window in windows]
    return Reference(
        clips=clips,
        windows=windows,
        frames_per_second=frames_per_second,
        mask=mask,
        embeddings=embeddings,
        encoder=(encoder.name, encoder.digest) if encoder else ("", ""),
        flow=tuple(motion.flow_degrees(frames, frames_per_second, dis_flow) for frames in stretches),
    )


def score_sample(
    sample_frames: Frames,
    reference: Reference | Frames,
    prompt_text: str,
    kind: str,
    encoder: ImageTextEncoder | None,
    frames_per_second: float,
) -> list[Score]:
    """All scores of one sample, in the catalog's order of families.

    The ceiling is scored the same way: pass each window of the reference after the autoencoder as a sample, with
    the reconstruction prompt; the mean over windows is the ceiling.

    Args:
        sample_frames: (T, H, W, 3).
        reference: from :func:`measure_reference`; bare frames are taken as the only clip (and measured each time).
        prompt_text: the short prompt, with the class noun in the subject's place; placeholders are removed.
            Empty: no text scores.
        kind: `reconstruction`, or any other kind of prompt, which counts as an edit.
        encoder: the encoder that measured the reference; None leaves its scores out, with that reason.
        frames_per_second: of the sample.

    Returns:
        One score per metric of the catalog, with None and a reason where the sample has none.

    Raises:
        InputError: the reference was measured with another encoder.
    """
    if not isinstance(reference, Reference):
        reference = measure_reference([reference], encoder, frames_per_second)
    if encoder is not None and (encoder.name, encoder.digest) != reference.encoder:
        raise InputError(
            "sample and reference would be embedded by different encoders",
            got=f"{encoder.name} ({encoder.digest[:8]})",
            expected=f"{reference.encoder[0]} ({reference.encoder[1][:8]})",
            fix="measure the reference again with this encoder",
        )
    return [
        *_pixel_scores(sample_frames, reference, kind, frames_per_second),
        *_image_text_scores(sample_frames, reference, prompt_text, encoder, frames_per_second),
        *_motion_scores(sample_frames, reference, frames_per_second),
    ]


def _pixel_scores(frames: Frames, reference: Reference, kind: str, frames_per_second: float) -> list[Score]:
    trace = Trace(preprocessing="uint8 at native size", frames_per_second=frames_per_second)
    aligned = _aligned_error(frames, reference, frames_per_second, None)
    rebuilt = kind == "reconstruction"
    measured = {
        "mse": aligned if rebuilt else Measurement(None, "only for the reconstruction prompt"),
        "mse_edit": Measurement(None, "only for edit prompts") if rebuilt else aligned,
        "mse_subject": Measurement(None, "no mask track")
        if reference.mask is None
        else _aligned_error(frames, reference, frames_per_second, reference.mask),
        "temporal_flickering": pixels.temporal_flickering(frames),
        "motion_smoothness_linear": pixels.motion_smoothness_linear(frames),
    }
    return [to_score(name, value, trace) for name, value in measured.items()]


def _aligned_error(
    frames: Frames, reference: Reference, frames_per_second: float, mask: NDArray[np.float32] | None
) -> Measurement:
    if not reference.clips:
        return Measurement(None, NO_CLIP)
    if not math.isclose(frames_per_second, reference.frames_per_second, rel_tol=1e-3):
        rates = f"sample {frames_per_second:g}, reference {reference.frames_per_second:g} frames per second"
        return Measurement(None, f"{rates}: frames do not align")
    return nearest_error(frames, reference.clips, reference.windows, mask)


def _image_text_scores(
    frames: Frames, reference: Reference, prompt_text: str, encoder: ImageTextEncoder | None, frames_per_second: float
) -> list[Score]:
    names = ("clip_t_aggregated", "clip_t_mean", "clip_i", "clip_consistency", "background_consistency")
    if encoder is None or reference.embeddings is None:
        trace = Trace(frames_per_second=frames_per_second)
        return [to_score(name, Measurement(None, NO_ENCODER), trace) for name in names]
    trace = Trace(
        encoder=encoder.name,
        encoder_digest=encoder.digest,
        preprocessing=encoder.preprocessing,
        frames_per_second=frames_per_second,
    )
    v = encoder.frames(frames)
    aggregated = mean = Measurement(None, "no prompt")
    text = plain_prompt(prompt_text)
    if text:
        note = "" if encoder.text_fits(text) else "the prompt is longer than the encoder reads; its end was cut off"
        t = encoder.text(text)
        aggregated = _noted(image_text.text_aggregated(v, t), note)
        mean = _noted(image_text.text_mean(v, t), note)
    similarity = image_text.image_similarity(v, reference.embeddings)
    values = (aggregated, mean, similarity, image_text.consistency(v), image_text.consistency_with_first(v))
    return [to_score(name, value, trace) for name, value in zip(names, values, strict=True)]


def _motion_scores(frames: Frames, reference: Reference, frames_per_second: float) -> list[Score]:
    measured = motion.flow_degrees(frames, frames_per_second, dis_flow)
    factor = upsampling_factor(measured.height, measured.width)
    trace = Trace(
        encoder=DIS_NAME,
        preprocessing=f"every {measured.step}. frame, grey, ×{factor}",
        frames_per_second=frames_per_second,
    )
    return [
        to_score("dynamic_degree_dis", motion.dynamic(measured), trace),
        to_score("dynamic_degree_dis_mean", motion.dynamic_mean(measured), trace, high=measured.longest),
        to_score("dynamic_degree_gap", motion.dynamic_gap(measured, reference.flow), trace, high=measured.longest),
    ]


def _noted(measured: Measurement, note: str) -> Measurement:
    return Measurement(measured.value, measured.reason or note)
