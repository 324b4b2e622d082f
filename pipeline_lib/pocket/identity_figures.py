"""How well the pocket identity encoder tells subjects apart that it has never seen.

Subjects: the first dozen of gizmos, and creatures of held-out seeds. Each has several views: own background, light,
motion and moment of it, size and place. Genuine pairs are any two views of one subject.
Impostor pairs are views of two different subjects of the same family: all are creatures, none is a plain shape.
Near-twins are counted apart from these: one attribute changed, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline_lib.features.identity import CropIdentityEncoder
from pipeline_lib.pocket.judge.twins import near_twin, shown_kinds
from pipeline_lib.pocket.subject_views import SubjectViews, render_views
from pipeline_lib.pocket.world_settings import HELD_OUT_SEED
from pipeline_lib.world.gizmos import REPORTING, TUNING, gizmo
from pipeline_lib.world.sampling import SceneMix, sample_creature, scene_generator
from pipeline_lib.world.scene import Subject

FALSE_ACCEPT_RATE = 0.01
DRESSED = 0.3
"""Share of views with an accessory, where subjects are dressed."""
GIZMOS = (*TUNING, *REPORTING)
"""The first dozen: cards and thresholds are of these."""
_RESAMPLES = 2000
Cosines = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Verification:
    """Cosines of pairs.

    Attributes:
        genuine: shape (N, P): pairs of views of each subject.
        impostor: shape (N, M): pairs of each subject's view with other subjects' views.
    """

    genuine: Cosines
    impostor: Cosines

    @property
    def threshold(self) -> float:
        """The cosine that 1 % of the impostor pairs reach."""
        return float(np.quantile(self.impostor, 1.0 - FALSE_ACCEPT_RATE))

    def record(self) -> dict[str, float | int]:
        """True-accept rate at that threshold, with its 95 % bootstrap interval over subjects."""
        accepted = (self.genuine >= self.threshold).mean(axis=1)
        rng = np.random.default_rng(0)
        draws = accepted[rng.integers(0, len(accepted), (_RESAMPLES, len(accepted)))].mean(axis=1)
        low, high = np.quantile(draws, [0.025, 0.975])
        return {
            "value": round(float(accepted.mean()), 4),
            "low": round(float(low), 4),
            "high": round(float(high), 4),
            "n": self.genuine.size,
        }


def held_out_subjects(creatures: int) -> list[Subject]:
    """The first twelve gizmos, then creatures that no recipe has seen."""
    rng = scene_generator(HELD_OUT_SEED, 0, stream=75)
    gizmos = [gizmo(index).reference.subjects[0] for index in GIZMOS]
    return gizmos + [sample_creature(rng, SceneMix(accessory_share=0.0)) for _ in range(creatures)]


def embedded(encoder: CropIdentityEncoder, shown: SubjectViews, with_masks: bool) -> Cosines:
    """Embeddings of views, shape (N, V, D)."""
    frames = shown.frames.reshape(-1, *shown.frames.shape[2:])
    masks = shown.masks.reshape(-1, *shown.masks.shape[2:]).astype(np.float32)
    told = encoder.subjects(frames, masks if with_masks else None)
    return told.double().numpy().reshape(*shown.frames.shape[:2], -1)


def verified(looks: Cosines) -> Verification:
    """Compare views of each subject with each other, and with one view of every other subject.

    Args:
        looks: unit vectors, shape (N, V, D).

    Returns:
        V (V - 1) / 2 genuine and N - 1 impostor pairs for each subject.
    """
    count, views = looks.shape[:2]
    first, second = np.triu_indices(views, 1)
    genuine = np.einsum("npd,npd->np", looks[:, first], looks[:, second])
    across = looks[:, 0] @ looks[:, 1].T
    return Verification(genuine, across[~np.eye(count, dtype=bool)].reshape(count, count - 1))


def measured_threshold(folder: Path, creatures: int = 188) -> float:
    """The cosine that 1 % of the impostor pairs reach, on dressed held-out subjects.

    Args:
        folder: the identity encoder.
        creatures: held-out creatures beside the gizmos.

    Returns:
        The threshold.
    """
    shown = render_views(held_out_subjects(creatures), HELD_OUT_SEED, 2, DRESSED)
    return verified(embedded(CropIdentityEncoder(folder), shown, True)).threshold


def identity_figures(folder: Path, creatures: int = 188) -> dict[str, dict[str, float | int]]:
    """The figures of the identity encoder's card, each at a false-accept rate of 1 % among strangers.

    Args:
        folder: the identity encoder.
        creatures: held-out creatures beside the gizmos.

    Returns:
        ``identity_tar`` (bar 0.95): true-accept rate with true masks, nobody dressed; ``identity_tar_dressed``: three
        of ten views with some accessory; ``identity_tar_unmasked``: that, on whole frames;
        ``identity_twins_accepted``: share of pairs of a subject and its near-twin that pass for one subject, dressed.
    """
    encoder, subjects = CropIdentityEncoder(folder), held_out_subjects(creatures)
    plain = render_views(subjects, HELD_OUT_SEED, 6, 0.0)
    shown = render_views(subjects, HELD_OUT_SEED, 6, DRESSED)
    looks = embedded(encoder, shown, True)
    dressed = verified(looks)
    rng = scene_generator(HELD_OUT_SEED, 0, stream=76)
    twins = [_changed(subject, rng) for subject in subjects]
    others = embedded(encoder, render_views(twins, HELD_OUT_SEED + 1, 2, DRESSED), True)
    alike = np.einsum("nvd,nwd->nvw", looks, others).reshape(len(subjects), -1)
    return {
        "identity_tar": verified(embedded(encoder, plain, True)).record(),
        "identity_tar_dressed": dressed.record(),
        "identity_tar_unmasked": verified(embedded(encoder, shown, False)).record(),
        "identity_twins_accepted": Verification(alike, dressed.impostor).record(),
    }


def _changed(subject: Subject, rng: np.random.Generator) -> Subject:
    kinds = shown_kinds(subject)
    return near_twin(subject, rng, kinds[int(rng.integers(len(kinds)))])
