"""Every metric's name, meaning, direction and range; how a measurement becomes a traceable score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pipeline_lib.records import Score

Direction = Literal["higher", "lower", "closer"]
Source = Literal["truth", "pixels", "image_text", "image", "identity", "flow"]


class Measurement(NamedTuple):
    """A number, or None with the reason why there is none. A note may also qualify a number."""

    value: float | None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a metric is.

    Attributes:
        name: the id that scores carry.
        label: for people.
        short: the field's own abbreviation.
        meaning: one sentence for people.
        direction: which way is better; `closer`: as close to the reference clip's own value as can be.
        low: the smallest possible value.
        high: the largest possible value; `math.inf` where it depends on the size of the frames
            (each score then carries its own).
        source: what it is computed from.
        cites: where the definition comes from.
        decimals: how many are worth printing.
    """

    name: str
    label: str
    short: str
    meaning: str
    direction: Direction
    low: float
    high: float
    source: Source
    cites: str = ""
    decimals: int = 3


_METRICS = (
    Metric(
        name="identity_accuracy",
        label="Is the subject",
        short="identity",
        meaning="Share of frames in which the judge names the subject as this very concept, among the other held-out "
        "concepts, strangers and near-twins that differ in one attribute.",
        direction="higher",
        low=0,
        high=1,
        source="truth",
        cites="Mannerism, pocket world",
        decimals=2,
    ),
    Metric(
        name="motion_fidelity",
        label="Moves as the subject does",
        short="motion",
        meaning="Agreement (Lin's concordance) of the subject's path, turn and size with the true ones of the clip: 1 "
        "the same motion, 0 none or an unrelated one; only where the prompt keeps motion and camera.",
        direction="higher",
        low=-1,
        high=1,
        source="truth",
        cites="Mannerism, pocket world",
        decimals=2,
    ),
    Metric(
        name="edit_accuracy",
        label="Shows what the edit asks for",
        short="edit",
        meaning="Of the attributes that the prompt asks for and that differ from the clip, the share that the judge "
        "reads in the sample.",
        direction="higher",
        low=0,
        high=1,
        source="truth",
        cites="Mannerism, pocket world",
        decimals=2,
    ),
    Metric(
        name="subject_identity",
        label="Is the same subject",
        short="ID",
        meaning="Mean similarity of the subject, cut out of every sample frame that shows it where there is a "
        "segmenter, to the mean subject of the reference, by an encoder of identity: the pocket world's own, in "
        "ArcFace's role.",
        direction="higher",
        low=-1,
        high=1,
        source="identity",
        cites="Set-and-Sequence's ID, with another encoder",
    ),
    Metric(
        name="subject_found",
        label="Shows a subject",
        short="found",
        meaning="Share of the frames in which the segmenter finds a subject: those that ID is the mean of.",
        direction="higher",
        low=0,
        high=1,
        source="identity",
        cites="the detection rate beside Set-and-Sequence's ID",
        decimals=2,
    ),
    Metric(
        name="clip_i",
        label="Looks like the subject",
        short="CLIP-I",
        meaning="Mean CLIP similarity of every sample frame to every reference frame.",
        direction="higher",
        low=-1,
        high=1,
        source="image_text",
        cites="DualReal, VCD",
    ),
    Metric(
        name="clip_t_aggregated",
        label="Follows the prompt",
        short="C-T",
        meaning="CLIP similarity of the mean frame embedding to the prompt.",
        direction="higher",
        low=-1,
        high=1,
        source="image_text",
        cites="Set-and-Sequence",
    ),
    Metric(
        name="clip_t_mean",
        label="Follows the prompt, per frame",
        short="CLIP-T",
        meaning="Mean CLIP similarity of the frames to the prompt.",
        direction="higher",
        low=-1,
        high=1,
        source="image_text",
        cites="DualReal, VCD",
    ),
    Metric(
        name="clip_consistency",
        label="Stays the same over time",
        short="TC",
        meaning="Mean CLIP similarity of neighbouring frames.",
        direction="higher",
        low=-1,
        high=1,
        source="image_text",
        cites="Set-and-Sequence, DualReal, VCD",
    ),
    Metric(
        name="background_consistency",
        label="Background stays the same",
        short="BG cons.",
        meaning="Mean CLIP similarity of every frame to the one before it and to the first.",
        direction="higher",
        low=0,
        high=1,
        source="image_text",
        cites="VBench background consistency",
    ),
    Metric(
        name="dino_i",
        label="Looks like the subject, DINO",
        short="DINO-I",
        meaning="Mean similarity of every sample frame to every reference frame, by an image encoder that knows no "
        "words: DINO, or the pocket world's own in its role.",
        direction="higher",
        low=-1,
        high=1,
        source="image",
        cites="DualReal, VCD",
    ),
    Metric(
        name="dino_consistency",
        label="Stays the same over time, DINO",
        short="DINO TC",
        meaning="Mean similarity of neighbouring frames, by the same image encoder.",
        direction="higher",
        low=-1,
        high=1,
        source="image",
        cites="Set-and-Sequence, DualReal, VCD",
    ),
    Metric(
        name="subject_consistency",
        label="Subject stays the same",
        short="subject cons.",
        meaning="Mean similarity of every frame to the one before it and to the first, by the same image encoder.",
        direction="higher",
        low=0,
        high=1,
        source="image",
        cites="VBench subject consistency",
    ),
    Metric(
        name="dynamic_degree_gap",
        label="Moves as much as the clip",
        short="DD gap",
        meaning="Distance of the mean flow (DIS, top 5 %) to the reference's, mean over its windows, in pixels.",
        direction="lower",
        low=0,
        high=math.inf,
        source="flow",
        cites="DualReal, on DIS flow",
        decimals=2,
    ),
    Metric(
        name="dynamic_degree_dis",
        label="Moves at all",
        short="DD",
        meaning="VBench's yes (1) or no (0) on DIS flow: enough frame pairs move fast enough.",
        direction="closer",
        low=0,
        high=1,
        source="flow",
        cites="VBench dynamic degree, on DIS flow",
        decimals=2,
    ),
    Metric(
        name="dynamic_degree_dis_mean",
        label="Amount of motion",
        short="flow",
        meaning="Mean over frame pairs of the mean of the top 5 % flow magnitudes (DIS), in pixels.",
        direction="closer",
        low=0,
        high=math.inf,
        source="flow",
        cites="VBench dynamic degree before its threshold, on DIS flow",
        decimals=2,
    ),
    Metric(
        name="motion_smoothness_linear",
        label="Smooth motion",
        short="smoothness",
        meaning="How well odd frames are told by the mean of their neighbours; weight-free stand-in for VBench's AMT.",
        direction="higher",
        low=0,
        high=1,
        source="pixels",
        cites="VBench motion smoothness, linear interpolation",
    ),
    Metric(
        name="temporal_flickering",
        label="Does not flicker",
        short="flicker",
        meaning="One minus the mean absolute difference of neighbouring frames.",
        direction="higher",
        low=0,
        high=1,
        source="pixels",
        cites="VBench",
    ),
    Metric(
        name="mse",
        label="Pixel error, reconstruction",
        short="MSE",
        meaning="Mean squared error in [0, 1] to the reference, frame by frame, on the reconstruction prompt; of "
        "several clips, or windows of a long one, the nearest counts.",
        direction="lower",
        low=0,
        high=1,
        source="pixels",
        cites="Set-and-Sequence",
        decimals=4,
    ),
    Metric(
        name="mse_edit",
        label="Pixel error, edits",
        short="MSE edit",
        meaning="The same on edit prompts: the paper's protocol, which punishes good edits.",
        direction="lower",
        low=0,
        high=1,
        source="pixels",
        cites="Set-and-Sequence",
        decimals=4,
    ),
    Metric(
        name="mse_subject",
        label="Pixel error, subject only",
        short="MSE subject",
        meaning="The same inside the subject's mask of the reference clip, on all prompts.",
        direction="lower",
        low=0,
        high=1,
        source="pixels",
        cites="Set-and-Sequence, masked",
        decimals=4,
    ),
)

CATALOG: dict[str, Metric] = {metric.name: metric for metric in _METRICS}
"""Every metric by name, in the order in which tables show them."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What a score's number rests on.

    Attributes:
        encoder: the encoder's id; empty for arithmetic on pixels.
        encoder_digest: SHA-256 of the encoder's weights; empty without weights.
        preprocessing: what happened to the frames first.
        frames_per_second: of the scored frames.
    """

    encoder: str = ""
    encoder_digest: str = ""
    preprocessing: str = ""
    frames_per_second: float = 0.0


def to_score(name: str, measured: Measurement, trace: Trace, *, high: float | None = None) -> Score:
    """A measurement as a record.

    A number that is not finite becomes None with that reason: it must not reach a mean.

    Args:
        name: a name in :data:`CATALOG`.
        measured: the number or the reason.
        trace: what it rests on.
        high: the largest possible value, for metrics whose range depends on the frames.

    Returns:
        The score, clipped to its metric's range.
    """
    metric = CATALOG[name]
    high = metric.high if high is None else high
    assert math.isfinite(high), f"{name} needs its own upper bound"
    value, reason = measured
    if value is not None and not math.isfinite(value):
        value, reason = None, f"the result was {value}, not a finite number"
    if value is not None:
        # Rounding may step out of a closed range by one bit; anything more is our mistake.
        clipped = min(max(value, metric.low), high)
        assert abs(clipped - value) <= 1e-5, f"{name} = {value} outside [{metric.low}, {high}]"
        value = clipped
    assert value is not None or reason, f"{name} has neither value nor reason"
    return Score(
        metric=name,
        value=value,
        reason=reason,
        direction=metric.direction,
        low=metric.low,
        high=high,
        encoder=trace.encoder,
        encoder_digest=trace.encoder_digest,
        preprocessing=trace.preprocessing,
        frames_per_second=trace.frames_per_second,
    )
