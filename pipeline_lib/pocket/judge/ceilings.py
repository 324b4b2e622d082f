"""Chance and ceiling of the truth metrics over all concepts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pipeline_lib.pocket.judge import truth
from pipeline_lib.pocket.judge.identity import FIRST, NOBODY, Gallery
from pipeline_lib.pocket.judge.judge import Judge
from pipeline_lib.pocket.judge.tally import mean_record
from pipeline_lib.world.gizmos import Gizmo, dozen, gizmo
from pipeline_lib.world.render import render
from pipeline_lib.world.scene import Scene

Frames = npt.NDArray[np.uint8]
Change = Callable[[Frames], Frames]
Found = dict[str, list[float]]


def _per_concept(found: list[Found]) -> dict[str, object]:
    """Mean over concepts of each concept's mean, with its 95 % interval."""
    names = sorted({name for one in found for name in one})
    return {name: mean_record([float(np.mean(one[name])) for one in found if one.get(name)]) for name in names}


def ceilings(
    judge: Judge, gallery: Gallery, change: Change | None = None, concepts: range = FIRST
) -> dict[str, object]:
    """What the truth metrics give for the very clips that the prompts ask for.

    Args:
        judge: who reads.
        gallery: of the same judge.
        change: what happens to the frames first, for example an autoencoder's round trip.
        concepts: gizmos of one dozen.

    Returns:
        ``identity.reference`` and ``motion.reference`` of the reference clips, ``identity.second`` of the
        second ones, and ``identity.edited``, ``motion.edited``, ``edit_accuracy`` and ``edit.<attribute>``
        of the scenes that the editing prompts ask for; each with its interval over the concepts.
    """

    def shown(scene: Scene) -> Frames:
        frames = render(scene).frames
        return frames if change is None else change(frames)

    return _per_concept([_of_concept(gizmo(index), shown, judge, gallery) for index in concepts])


def _of_concept(concept: Gizmo, shown: Callable[[Scene], Frames], judge: Judge, gallery: Gallery) -> Found:
    found: Found = defaultdict(list)

    def note(name: str, value: float | None) -> None:
        if value is not None:
            found[name].append(value)

    reading = judge.read(shown(concept.reference))
    note("identity.reference", truth.identity_accuracy(reading, concept.index, gallery).value)
    note("motion.reference", truth.motion_fidelity(reading, concept).value)
    reading = judge.read(shown(concept.second))
    note("identity.second", truth.identity_accuracy(reading, concept.index, gallery).value)
    for prompt in concept.editing_prompts[1:]:
        scores = truth.score(shown(truth.edited_scene(concept, prompt)), concept, prompt, judge, gallery)
        note("identity.edited", scores.identity_accuracy)
        note("motion.edited", scores.motion_fidelity)
        note("edit_accuracy", scores.edit_accuracy)
        asked = [name for name in prompt.attributes if name != "background"] or ["background"]
        note(f"edit.{asked[0]}", scores.edit_accuracy)
    return found


def chance(judge: Judge, gallery: Gallery, concepts: range = FIRST) -> dict[str, object]:
    """What samples score that show another concept.

    Args:
        judge: who reads.
        gallery: of the same judge.
        concepts: gizmos of one dozen.

    Returns:
        Over the concepts that were asked for: ``identity`` and ``motion`` of the others' reference clips,
        ``edit_accuracy`` of the others' second clips (elsewhere) against this one's prompts.
    """
    people = {index: gizmo(index) for index in concepts}
    clips = {index: judge.read(render(one.reference).frames) for index, one in people.items()}
    seconds = {index: judge.read(render(one.second).frames) for index, one in people.items()}
    named = {
        index: gallery.names(clip.main, clip.daylight, dozen(index)) if clip.main else np.array([NOBODY])
        for index, clip in clips.items()
    }
    found: list[Found] = []
    for asked in people.values():
        others = [index for index in concepts if index != asked.index]
        motions = [truth.motion_fidelity(clips[index], asked).value for index in others]
        edits = [
            truth.edit_accuracy(seconds[index], asked, prompt).value
            for index in others
            for prompt in asked.editing_prompts[1:]
        ]
        found.append(
            {
                "identity": [float((named[index] == asked.index).mean()) for index in others],
                "motion": [value for value in motions if value is not None],
                "edit_accuracy": [value for value in edits if value is not None],
            }
        )
    return _per_concept(found)
