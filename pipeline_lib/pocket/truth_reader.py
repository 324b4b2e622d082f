"""The truth about a gizmo or a pair of them, read by the judge of the pocket world."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline_lib.features.truth import OtherClip
from pipeline_lib.metrics.catalog import Measurement, Trace, to_score
from pipeline_lib.pocket.judge import Gallery, Judge, Reading, truth
from pipeline_lib.pocket.judge.pairs import PairReading, edited_pair
from pipeline_lib.records import Prompt, Score
from pipeline_lib.storage.files import CHECKSUMS
from pipeline_lib.world.gizmos import EditingPrompt, Gizmo, dozen, gizmo
from pipeline_lib.world.pairs import PAIRS, Pair, pair
from pipeline_lib.world.render import render
from pipeline_lib.world.scene import Scene
from pipeline_lib.world.vocabulary import FRAME_SIZE, FRAMES_PER_SECOND

Frames = npt.NDArray[np.uint8]

METRICS = ("identity_accuracy", "motion_fidelity", "edit_accuracy")
_UNKNOWN = "the truth about this prompt is not known"
_LOOK = frozenset(("colour", "texture", "shape"))
"""Whoever obeys a prompt for one of these is, by the gallery, somebody else."""


@dataclass(frozen=True)
class _GizmoReading:
    """A clip as the judge read it, held against one gizmo; see :class:`PairReading`."""

    reading: Reading
    gizmo: Gizmo
    gallery: Gallery

    @cached_property
    def identity_accuracy(self) -> Measurement:
        return truth.identity_accuracy(self.reading, self.gizmo.index, self.gallery)

    @property
    def motion_fidelity(self) -> Measurement:
        return truth.motion_fidelity(self.reading, self.gizmo)

    def edit_accuracy(self, asked: EditingPrompt) -> Measurement:
        return truth.edit_accuracy(self.reading, self.gizmo, asked)


_Read = _GizmoReading | PairReading


class PocketTruth(ABC):
    """A :class:`~pipeline_lib.features.truth.TruthReader` of one held-out concept of the pocket world.

    Beside the metrics of `metrics.truth`: identity has no value where the prompt asks for another look, because
    the judge's gallery tells a repainted twin from the concept. Chance is what others of its kind score: their
    reference clips under the reconstruction prompt, their second clips (elsewhere) under edit prompts.

    Args:
        concept: whose truth it is.
        others: those of its kind whose clips are its chance.
        judge: file of the judge's weights; read when first needed.
        gallery: file of the same judge's gallery.
    """

    def __init__(self, concept: Gizmo | Pair, others: Sequence[Gizmo | Pair], judge: Path, gallery: Path) -> None:
        self._concept, self._others = concept, others
        self._known = {prompt.text: prompt for prompt in concept.editing_prompts}
        self._files = judge, gallery
        self._others_read: dict[bool, list[tuple[Frames, _Read]]] = {}

    @abstractmethod
    def _held(self, reading: Reading) -> _Read:
        """A reading held against the concept."""

    @abstractmethod
    def _edited(self, asked: EditingPrompt) -> Scene:
        """The scene that a prompt asks for."""

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
        return render(self._edited(asked)).frames

    def chance(self, prompt: Prompt) -> list[OtherClip]:
        """See :class:`~pipeline_lib.features.truth.TruthReader`."""
        asked = self._asked(prompt)
        if asked is None:
            return []
        others = self._read_others(asked.kind == "reconstruction")
        return [OtherClip(frames, self._scores(self._measured(read, asked))) for frames, read in others]

    def _asked(self, prompt: Prompt) -> EditingPrompt | None:
        if prompt.kind == "reconstruction":
            return self._concept.editing_prompts[0]
        return self._known.get(prompt.text)

    def _read(self, frames: Frames) -> _Read:
        return self._held(self._judge.read(frames))

    def _measured(self, read: _Read, asked: EditingPrompt) -> list[Measurement]:
        identity = Measurement(None, "the prompt asks for another look")
        motion = Measurement(None, "the prompt asks for another motion or camera")
        if _LOOK.isdisjoint(asked.attributes):
            identity = read.identity_accuracy
        if truth.keeps_motion(asked):
            motion = read.motion_fidelity
        return [identity, motion, read.edit_accuracy(asked)]

    def _scores(self, measured: list[Measurement]) -> list[Score]:
        return [to_score(name, value, self._trace) for name, value in zip(METRICS, measured, strict=True)]

    def _read_others(self, references: bool) -> list[tuple[Frames, _Read]]:
        """All others' clips, each read and likened to the gallery once: that is most of what scoring costs."""
        if references not in self._others_read:
            scenes = [other.reference if references else other.second for other in self._others]
            clips = [render(scene).frames for scene in scenes]
            self._others_read[references] = [(frames, self._read(frames)) for frames in clips]
        return self._others_read[references]

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


class GizmoTruth(PocketTruth):
    """The truth about one gizmo.

    Args:
        index: which gizmo.
        judge: as for :class:`PocketTruth`.
        gallery: likewise.

    Raises:
        InputError: there is no such gizmo.
    """

    def __init__(self, index: int, judge: Path, gallery: Path) -> None:
        self._gizmo = gizmo(index)
        others = [gizmo(other) for other in dozen(index) if other != index]
        super().__init__(self._gizmo, others, judge, gallery)

    def _held(self, reading: Reading) -> _Read:
        return _GizmoReading(reading, self._gizmo, self._gallery)

    def _edited(self, asked: EditingPrompt) -> Scene:
        return truth.edited_scene(self._gizmo, asked)


class PairTruth(PocketTruth):
    """The truth about a pair: see :mod:`pipeline_lib.pocket.judge.pairs`.

    Args:
        index: which pair.
        judge: as for :class:`PocketTruth`.
        gallery: likewise.

    Raises:
        InputError: there is no such pair.
    """

    def __init__(self, index: int, judge: Path, gallery: Path) -> None:
        self._pair = pair(index)
        super().__init__(self._pair, [pair(other) for other in PAIRS if other != index], judge, gallery)

    def _held(self, reading: Reading) -> _Read:
        return PairReading(reading, self._pair, self._gallery)

    def _edited(self, asked: EditingPrompt) -> Scene:
        return edited_pair(self._pair, asked)
