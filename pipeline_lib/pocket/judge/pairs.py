"""The truth metrics of a pair: who of the tracked subjects is which member, and how well they are both met."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations

import numpy as np
import numpy.typing as npt

from pipeline_lib.metrics import truth as arithmetic
from pipeline_lib.metrics.catalog import Measurement
from pipeline_lib.pocket.judge.identity import Gallery
from pipeline_lib.pocket.judge.reading import Reading
from pipeline_lib.pocket.judge.truth import (
    as_channels,
    changed_world,
    read_words,
    reference_track,
    reference_words,
    turns_visibly,
)
from pipeline_lib.world.gizmos import EditingPrompt, dozen
from pipeline_lib.world.pairs import Pair
from pipeline_lib.world.scene import Scene

Shares = npt.NDArray[np.float64]
MEMBERS = (0, 1)


@dataclass(frozen=True)
class PairReading:
    """A clip as a judge read it, held against a pair.

    Attributes:
        reading: of the clip.
        pair: who should be in it.
        gallery: of the same judge.
    """

    reading: Reading
    pair: Pair
    gallery: Gallery

    @cached_property
    def shares(self) -> Shares:
        """Share of frames in which each subject is named as each member, shape (subjects, 2)."""
        subjects, daylight = self.reading.subjects, self.reading.daylight
        among = dozen(self.pair.members[0].index)
        named = [self.gallery.names(one, daylight, among) for one in subjects]
        return np.array(
            [[float((names == member.index).mean()) for member in self.pair.members] for names in named]
        ).reshape(len(subjects), len(MEMBERS))

    @cached_property
    def members(self) -> tuple[int | None, int | None]:
        """The subject that stands for each member, none for two: as named most often, else by the side it is on."""
        rest = [reference_track(self.pair.reference, member)[:, 0].mean() for member in MEMBERS]
        places = [float(np.nanmean(one.track[:, 0])) for one in self.reading.subjects]

        def fit(choice: tuple[int | None, ...]) -> tuple[float, float]:
            met = [(member, subject) for member, subject in enumerate(choice) if subject is not None]
            return (
                sum(float(self.shares[subject, member]) for member, subject in met),
                -sum(abs(places[subject] - float(rest[member])) for member, subject in met),
            )

        absent = [None] * (len(MEMBERS) - len(places))
        left, right = max(permutations([*range(len(places)), *absent], len(MEMBERS)), key=fit)
        return left, right

    @property
    def identity_accuracy(self) -> Measurement:
        """Mean over both members of the share of frames in which the one that stands for it is named as it."""
        found = [0.0 if one is None else float(self.shares[one, member]) for member, one in enumerate(self.members)]
        return Measurement(float(np.mean(found)), "" if self.reading.subjects else "no subject was found")

    @property
    def motion_fidelity(self) -> Measurement:
        """Mean over both members of the concordance with the member's own track in the pair's clip; a lost one is 0."""
        found = [
            arithmetic.motion_fidelity(
                self._track(one),
                reference_track(self.pair.reference, member),
                with_angle=turns_visibly(self.pair.reference.subjects[member]),
            )
            for member, one in enumerate(self.members)
        ]
        values = [one.value for one in found if one.value is not None]
        reason = next((one.reason for one in found if one.reason), "")
        return Measurement(float(np.mean(values)), reason) if len(values) == len(found) else Measurement(None, reason)

    def edit_accuracy(self, prompt: EditingPrompt) -> Measurement:
        """Share of the asked-for changes that are read; an accessory on either: the prompt does not say whose.

        Args:
            prompt: what was asked for.

        Returns:
            A value in [0, 1], or None when the prompt asks for nothing new.
        """
        told = read_words(self.reading)
        asked = prompt.attributes.get("accessory")
        if asked in [one.words["accessory"].word for one in self.reading.subjects]:
            told["accessory"] = str(asked)
        return arithmetic.edit_accuracy(prompt.attributes, reference_words(self.pair.reference), told)

    def _track(self, subject: int | None) -> npt.NDArray[np.float32] | None:
        return None if subject is None else as_channels(self.reading.subjects[subject])


def edited_pair(concept: Pair, prompt: EditingPrompt) -> Scene:
    """The scene that a prompt asks for; an accessory is on the right one, as training captions bind it.

    Args:
        concept: the pair.
        prompt: one of its editing prompts.

    Returns:
        The reference scene with the attributes asked for.
    """
    left, right = concept.reference.subjects
    worn = replace(right, accessory=prompt.attributes.get("accessory", right.accessory))
    return changed_world(replace(concept.reference, subjects=(left, worn)), prompt)
