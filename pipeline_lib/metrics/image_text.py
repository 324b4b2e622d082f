"""Scores over embeddings: pure functions of unit vectors.

`v` is (T, d), the frames; `r` is (R, d), the reference frames; `t` is (d,), the text; all of length 1.
"""

from __future__ import annotations

import torch

from pipeline_lib.metrics.catalog import Measurement

_ALONE = "one frame has no neighbour"


def text_aggregated(v: torch.Tensor, t: torch.Tensor) -> Measurement:
    """cos(mean_i v_i, t): Set-and-Sequence's C-T."""
    mean = v.double().mean(0)
    if mean.norm() < 1e-6:
        return Measurement(None, "the mean frame embedding is zero, so it has no angle")
    return Measurement(float(mean / mean.norm() @ t.double()))


def text_mean(v: torch.Tensor, t: torch.Tensor) -> Measurement:
    """mean_i cos(v_i, t): DualReal's and VCD's CLIP-T."""
    return Measurement(float((v.double() @ t.double()).mean()))


def image_similarity(v: torch.Tensor, r: torch.Tensor) -> Measurement:
    """mean_{i,j} cos(v_i, r_j): DualReal's and VCD's CLIP-I."""
    return Measurement(float((v.double() @ r.double().T).mean()))


def consistency(v: torch.Tensor) -> Measurement:
    """mean_i cos(v_i, v_{i+1}): temporal consistency."""
    if len(v) < 2:
        return Measurement(None, _ALONE)
    return Measurement(float((v[:-1].double() * v[1:].double()).sum(-1).mean()))


def consistency_with_first(v: torch.Tensor) -> Measurement:
    """mean_{i ≥ 1} (max(0, cos(v_i, v_{i-1})) + max(0, cos(v_i, v_0))) / 2: VBench's consistency."""
    if len(v) < 2:
        return Measurement(None, _ALONE)
    later, earlier = v[1:].double(), v[:-1].double()
    previous, first = (later * earlier).sum(-1), later @ v[0].double()
    return Measurement(float((previous.clamp(min=0) + first.clamp(min=0)).mean() / 2))
