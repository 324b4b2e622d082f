"""Open-set recognition of the held-out concepts: who is in the gallery, who is named, and the threshold.

The gallery holds a template of everybody: a dozen of concepts, their near-twins and strangers. A frame's crop
is registered to the concept that it looks like most, and is named as this concept if nobody else in the
gallery is more like it *and* it is alike enough. Near-twins are rivals, each of them one attribute away,
so that a sample that gets one attribute wrong is named as the twin, and counts as wrong. The threshold
keeps out those whom the gallery does not hold: at most 1 % of the frames of fresh strangers pass it for one of the
first dozen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from pipeline_lib.errors import InputError
from pipeline_lib.pocket.judge.likeness import Templates, cut, paint_templates, registered, unlikeness
from pipeline_lib.pocket.judge.reading import Reading, SubjectReading
from pipeline_lib.pocket.judge.twins import near_twins
from pipeline_lib.storage.tensors import read_tensors, save_tensors
from pipeline_lib.world.gizmos import DOZEN, dozen, gizmo
from pipeline_lib.world.render import render
from pipeline_lib.world.sampling import SceneMix, sample_scene, scene_generator
from pipeline_lib.world.scene import Scene, Subject
from pipeline_lib.world.vocabulary import ACCESSORIES

Array = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Reader = Callable[[npt.NDArray[np.uint8]], Reading]

CONCEPTS = DOZEN
FIRST = dozen(0)
"""Whose likeness to strangers sets the threshold; what it lets pass for another dozen is measured."""
STRANGERS = 100
TWINS = 20
"""Near-twins of each concept in the gallery, each with one attribute changed."""
FALSE_ACCEPT_RATE = 0.01
NOBODY = -1
_GALLERY_SEED, _IMPOSTOR_SEED = 515_001, 515_002
_IMPOSTORS, _IMPOSTOR_STRIDE = 400, 6
_GUESSES = 2  # concepts that a crop is registered to
_NO_BETTER = 0.02  # of the subject's pixels; a lead below this is a tie
_ALONE = SceneMix(two_share=0.0, creature_share=1.0)


@dataclass(frozen=True)
class Everybody:
    """The templates of a gallery.

    Attributes:
        concepts: whom it tells apart, as indices of gizmos.
        templates: the concepts in their order, then 20 twins of each, then the strangers.
        covered: pixels that an accessory hides or stands in, per concept and word, shape (12, 5, 48, 48).
    """

    concepts: range
    templates: Templates
    covered: Tensor

    def rivals(self, concept: int) -> Tensor:
        """Rows of whoever a concept's frames are compared with: other concepts, its own twins, strangers.

        Args:
            concept: its own row.

        Returns:
            Their rows.
        """
        count = len(self.concepts)
        others = [row for row in range(count) if row != concept]
        first = count + concept * TWINS
        strangers = range(count * (1 + TWINS), len(self.templates.cover))
        return torch.tensor([*others, *range(first, first + TWINS), *strangers])


@dataclass(frozen=True)
class Gallery:
    """Whom a crop is compared with, and how alike is alike enough.

    Attributes:
        threshold: greatest unlikeness per pixel of a concept's template that is accepted.
    """

    threshold: float

    def names(self, one: SubjectReading, daylight: Tensor, concepts: range) -> Indices:
        """Name a subject frame by frame.

        Args:
            one: a subject as a judge read it.
            daylight: the frames with the light divided out, shape (T, 3, 64, 64).
            concepts: whom it may be: a dozen of gizmos.

        Returns:
            Index of the gizmo per frame, or ``NOBODY``, shape (T,).
        """
        nearest, score = nearest_concepts(one, daylight, concepts)
        return np.where(score <= self.threshold, nearest, NOBODY)

    def save(self, path: Path) -> None:
        """Write the threshold: who is in the gallery is drawn and painted anew by the world."""
        save_tensors(path, {"threshold": torch.tensor([self.threshold])})

    @staticmethod
    def load(path: Path) -> Gallery:
        """Read a gallery.

        Args:
            path: the file.

        Returns:
            The gallery.

        Raises:
            InputError: when there is none.
        """
        tensors, _ = read_tensors(path)
        if "threshold" not in tensors:
            raise InputError(f"{path} holds no gallery", got=", ".join(sorted(tensors)))
        return Gallery(float(tensors["threshold"][0]))


def twin_scenes(concept: int, seed: int, count: int) -> list[Scene]:
    """The concept's reference clip with near-twins in its place.

    Args:
        concept: which gizmo.
        seed: seed of the changes.
        count: how many.

    Returns:
        Scenes of the full length.
    """
    reference = gizmo(concept).reference
    twins = near_twins(reference.subjects[0], scene_generator(seed, concept, stream=60), count)
    return [replace(reference, subjects=(twin,)) for twin in twins]


def stranger_scenes(seed: int, count: int) -> list[Scene]:
    """Scenes of one random creature each."""
    return [sample_scene(seed, index, _ALONE) for index in range(count)]


def _covered(subject: Subject) -> Tensor:
    """Pixels that each accessory changes, shape (5, 48, 48)."""
    worn = [replace(subject, accessory=word, accessory_colour=ink) for word in ACCESSORIES for ink in ("white", "red")]
    painted = paint_templates(worn)
    bare = painted.take(slice(0, 1))
    off = (painted.colour * painted.cover[:, None] - bare.colour * bare.cover[:, None]).abs().amax(dim=1)
    changed = (off > 0.1).float().unflatten(0, (len(ACCESSORIES), 2)).amax(dim=1)
    return functional.max_pool2d(changed, 3, 1, 1)


@cache
def everybody(concepts: range) -> Everybody:
    """Paint the gallery of a dozen of gizmos; the same in every process."""
    asked = [gizmo(index).reference.subjects[0] for index in concepts]
    twins = [scene for index in concepts for scene in twin_scenes(index, _GALLERY_SEED, TWINS)]
    others = [scene.subjects[0] for scene in (*twins, *stranger_scenes(_GALLERY_SEED, STRANGERS))]
    covered = torch.stack([_covered(subject) for subject in asked])
    return Everybody(concepts, paint_templates([*asked, *others]), covered)


@torch.no_grad()
def nearest_concepts(one: SubjectReading, daylight: Tensor, concepts: range) -> tuple[Indices, Array]:
    """Whom each frame of a subject looks like most.

    Args:
        one: a subject as a judge read it.
        daylight: shape (T, 3, 64, 64).
        concepts: whom it may be: a dozen of gizmos.

    Returns:
        The gizmo's index, or ``NOBODY`` where somebody else of the gallery is more alike or nobody was found,
        and the unlikeness per pixel to the concept's template, both of shape (T,).
    """
    people, found = everybody(concepts), one.found
    nearest, score = np.full(len(found), NOBODY, dtype=np.int64), np.full(len(found), np.inf, dtype=np.float32)
    if not found.any():
        return nearest, score
    frames, pose = daylight[torch.from_numpy(found)], torch.from_numpy(one.track[found])
    hidden = people.covered[:, ACCESSORIES.index(one.words["accessory"].word)]
    guess, pose = _most_alike(frames, pose, people.templates.take(slice(0, len(concepts))), hidden)
    crops, inside = cut(frames, pose)
    for concept in guess.unique().tolist():
        rows = guess == concept
        counts = inside[rows] * (1.0 - hidden[concept])
        own = unlikeness(crops[rows], counts, people.templates.take(slice(concept, concept + 1)))[:, 0]
        size = torch.einsum("thw,hw->t", counts, people.templates.cover[concept]).clamp_min(1.0)
        rivals = unlikeness(crops[rows], counts, people.templates.take(people.rivals(concept))).amin(dim=1)
        places = np.flatnonzero(found)[rows.numpy()]
        nearest[places] = torch.where(own <= rivals + _NO_BETTER * size, people.concepts[concept], NOBODY).numpy()
        score[places] = (own / size).numpy()
    return nearest, score


def _most_alike(frames: Tensor, pose: Tensor, concepts: Templates, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """The concept that each frame looks like most, of the two best guesses, and the pose registered to it."""
    guesses = unlikeness(*cut(frames, pose), concepts).topk(_GUESSES, dim=1, largest=False).indices.T
    ends = [registered(frames, pose, concepts.take(guess), hidden[guess]) for guess in guesses]
    which = torch.stack([left for _, left in ends]).argmin(dim=0)
    rows = torch.arange(len(frames))
    return guesses[which, rows], torch.stack([end for end, _ in ends])[which, rows]


def build_gallery(read: Reader) -> Gallery:
    """Set the threshold: the greatest at which at most 1 % of the frames of fresh strangers are named.

    Args:
        read: a judge's ``read``.

    Returns:
        The gallery.
    """
    scores = [score_of(read(render(scene).frames[::_IMPOSTOR_STRIDE]), FIRST) for scene in impostors()]
    accepted = np.sort(np.concatenate(scores))
    allowed = int(FALSE_ACCEPT_RATE * len(accepted))
    # One step below the score of the first frame that may no longer be accepted.
    return Gallery(float(np.nextafter(accepted[allowed], np.float32(-np.inf))))


def impostors() -> list[Scene]:
    """The strangers that set the threshold; the gallery does not hold them."""
    return stranger_scenes(_IMPOSTOR_SEED, _IMPOSTORS)


def score_of(reading: Reading, concepts: range) -> Array:
    """Unlikeness of the main subject to the one of a dozen that each frame is named as; infinite for nobody's."""
    if reading.main is None:
        return np.full(len(reading.daylight), np.inf, dtype=np.float32)
    nearest, score = nearest_concepts(reading.main, reading.daylight, concepts)
    return np.where(nearest == NOBODY, np.float32(np.inf), score)
