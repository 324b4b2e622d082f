"""The truth about a gizmo, read by the judge of the pocket world."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline_lib.metrics.catalog import Measurement, Trace, to_score
from pipeline_lib.pocket.judge import Gallery, Judge, Reading, truth
from pipeline_lib.records import Prompt, Score
from pipeline_lib.storage.files import CHECKSUMS
from pipeline_lib.world.gizmos import REPORTING, TUNING, EditingPrompt, gizmo
from pipeline_lib.world.render import render
from pipeline_lib.world.vocabulary import FRAME_SIZE, FRAMES_PER_SECOND

Frames = npt.NDArray[np.uint8]

METRICS = ("identity_accuracy", "motion_fidelity", "edit_accuracy")
_UNKNOWN = "the truth about this prompt is not known"
_LOOK = frozenset(("colour", "texture", "shape"))
"""Whoever obeys a prompt for one of these is, by the gallery, somebody else."""


class _Read:
    """A clip as the judge reads it, and whose it looks like: that does not depend on what was asked for.

    Args:
        reading: of the clip.
        index: the gizmo that it should be.
        gallery: gives the judge's gallery.
    """

    def __init__(self, reading: Reading, index: int, gallery: Callable[[], Gallery]) -> None:
        self.reading, self._index, self._gallery = reading, index, gallery

    @cached_property
    def identity(self) -> Measurement:
        return truth.identity_accuracy(self.reading, self._index, self._gallery())


class GizmoTruth:
    """A :class:`~pipeline_lib.features.truth.TruthReader` of one held-out concept of the pocket world.

    Beside the metrics of `metrics.truth`: identity has no value where the prompt asks for another look, because
    the judge's gallery tells a repainted twin from the concept. Chance is what the other gizmos' clips score: their
    reference clips under the reconstruction prompt, their second clips (elsewhere) under edit prompts.

    Args:
        index: which gizmo.
        judge: file of the judge's weights; read when first needed.
        gallery: file of the same judge's gallery.

    Raises:
        InputError: there is no such gizmo.
    """

    def __init__(self, index: int, judge: Path, gallery: Path) -> None:
        self._gizmo = gizmo(index)
        self._known = {prompt.text: prompt for prompt in self._gizmo.editing_prompts}
        self._files = judge, gallery
        self._others: dict[bool, list[_Read]] = {}

    def score(self, frames: Frames, prompt: Prompt) -> list[Score]:
        """See :class:`~pipeline_lib.features.truth.TruthReader`."""
        asked = self._asked(prompt)
        if asked is None:
            return self._scores([Measurement(None, _UNKNOWN)] * len(METRICS))
        if frames.shape[1:] != (FRAME_SIZE, FRAME_SIZE, 3):
            size = f"{frames.shape[2]}×{frames.shape[1]}"
            reason = f"the judge reads frames of {FRAME_SIZE}×{FRAME_SIZE}, these are {size}"
            return self._scores([Measurement(None, reason)] * len(METRICS))
        return self._scores(self._measured(self._read(frames), asked))

    def wanted(self, prompt: Prompt) -> Frames | None:
        """See :class:`~pipeline_lib.features.truth.TruthReader`."""
        asked = self._asked(prompt)
        if asked is None or asked.kind == "reconstruction":
            return None
        return render(truth.edited_scene(self._gizmo, asked)).frames

    def chance(self, prompt: Prompt) -> list[list[Score]]:
        """See :class:`~pipeline_lib.features.truth.TruthReader`."""
        asked = self._asked(prompt)
        if asked is None:
            return []
        return [
            self._scores(self._measured(other, asked)) for other in self._read_others(asked.kind == "reconstruction")
        ]

    def _asked(self, prompt: Prompt) -> EditingPrompt | None:
        if prompt.kind == "reconstruction":
            return self._gizmo.editing_prompts[0]
        return self._known.get(prompt.text)

    def _read(self, frames: Frames) -> _Read:
        return _Read(self._judge.read(frames), self._gizmo.index, lambda: self._gallery)

    def _measured(self, read: _Read, asked: EditingPrompt) -> list[Measurement]:
        identity = Measurement(None, "the prompt asks for another look")
        motion = Measurement(None, "the prompt asks for another motion or camera")
        if _LOOK.isdisjoint(asked.attributes):
            identity = read.identity
        if truth.keeps_motion(asked):
            motion = truth.motion_fidelity(read.reading, self._gizmo)
        return [identity, motion, truth.edit_accuracy(read.reading, self._gizmo, asked)]

    def _scores(self, measured: list[Measurement]) -> list[Score]:
        return [to_score(name, value, self._trace) for name, value in zip(METRICS, measured, strict=True)]

    def _read_others(self, references: bool) -> list[_Read]:
        """All other gizmos' clips, each read and likened to the gallery once: that is most of what scoring costs."""
        if references not in self._others:
            others = [gizmo(index) for index in (*TUNING, *REPORTING) if index != self._gizmo.index]
            scenes = [other.reference if references else other.second for other in others]
            self._others[references] = [self._read(render(scene).frames) for scene in scenes]
        return self._others[references]

    @cached_property
    def _judge(self) -> Judge:
        return Judge.load("first", self._files[0])

    @cached_property
    def _gallery(self) -> Gallery:
        return Gallery.load(self._files[1])

    @cached_property
    def _trace(self) -> Trace:
        gallery = CHECKSUMS.of(self._files[1])[:8]
        return Trace(
            encoder="pocket judge",
            encoder_digest=CHECKSUMS.of(self._files[0]),
            preprocessing=f"{FRAME_SIZE}×{FRAME_SIZE} as they are, gallery {gallery}",
            frames_per_second=float(FRAMES_PER_SECOND),
        )
