"""The truth metrics of the pocket world: identity, motion and edits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline_lib.metrics import truth
from pipeline_lib.metrics.catalog import Measurement
from pipeline_lib.pocket.judge.identity import Gallery
from pipeline_lib.pocket.judge.judge import Judge
from pipeline_lib.pocket.judge.reading import Reading, SubjectReading
from pipeline_lib.world.gizmos import EditingPrompt, Gizmo, dozen
from pipeline_lib.world.render import RenderedClip, subject_track
from pipeline_lib.world.scene import Camera, Scene, Subject

Frames = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float32]
ROUND_SHAPES = frozenset(("circle", "ring", "square", "cross"))
"""Shapes whose outline hardly changes when they turn: their angle is not counted."""
_CAMERA_AMOUNTS = {"static": 0.0, "pan left": 1.1, "pan right": 1.1, "zoom in": 0.6}
_SUBJECT_FIELDS = ("colour", "accessory", "texture", "shape")


def turns_visibly(subject: Subject) -> bool:
    """Whether a turn of the subject shows in its outline."""
    return subject.shape not in ROUND_SHAPES


def reference_track(scene: Scene, subject: int = 0) -> Array:
    """A subject's true track with the columns of ``metrics.truth.CHANNELS``.

    Args:
        scene: the scene.
        subject: which of its subjects.

    Returns:
        Shape (T, 4): pixels, pixels, radians, log of pixels.
    """
    track = subject_track(scene, scene.subjects[subject])
    return np.stack([track.x, track.y, track.angle, np.log(track.scale)], axis=1)


def read_track(reading: Reading) -> Array | None:
    """The main subject's track with the same columns, shape (T, 4); None when the judge abstains."""
    return None if reading.main is None else as_channels(reading.main)


def as_channels(one: SubjectReading) -> Array:
    """A read subject's track with the same columns, shape (T, 4)."""
    return one.track[:, [0, 1, 3, 2]]


def reference_words(scene: Scene) -> dict[str, str]:
    """Words of a scene's one subject and its surroundings, by attribute of an editing prompt."""
    words = {name: str(getattr(scene.subjects[0], name)) for name in _SUBJECT_FIELDS}
    return {**words, "background": scene.backdrop.name, "light": scene.light, "camera": scene.camera.name}


def read_words(reading: Reading) -> dict[str, str]:
    """The same words as the judge reads them; those that cannot be read are left out."""
    words = {"background": reading.background.word, "light": reading.light.word}
    if reading.camera is not None:
        words["camera"] = reading.camera.word
    if reading.main is not None:
        words |= {name: reading.main.words[name].word for name in _SUBJECT_FIELDS}
    return words


def identity_accuracy(reading: Reading, concept: int, gallery: Gallery) -> Measurement:
    """Share of frames whose subject is named as this concept.

    Of two subjects the one that is named more often counts.

    Args:
        reading: a sample as the judge of this gallery read it.
        concept: index of the gizmo.
        gallery: of the same judge.

    Returns:
        A value in [0, 1]; 0 when no subject was found.
    """
    shares = [
        truth.identity_accuracy(gallery.names(one, reading.daylight, dozen(concept)) == concept).value or 0.0
        for one in reading.subjects
    ]
    return Measurement(max(shares, default=0.0), "" if shares else "no subject was found")


def motion_fidelity(reading: Reading, concept: Gizmo) -> Measurement:
    """Concordance of the main subject's track with the true track of the concept's reference clip.

    Only for prompts that keep motion and camera.

    Args:
        reading: a sample as a judge read it.
        concept: the gizmo.

    Returns:
        A value in [-1, 1], or None; see :func:`pipeline_lib.metrics.truth.motion_fidelity`.
    """
    visible = turns_visibly(concept.reference.subjects[0])
    return truth.motion_fidelity(read_track(reading), reference_track(concept.reference), with_angle=visible)


def edit_accuracy(reading: Reading, concept: Gizmo, prompt: EditingPrompt) -> Measurement:
    """Share of the asked-for changes that the judge reads in the sample.

    Args:
        reading: a sample as a judge read it.
        concept: the gizmo.
        prompt: what was asked for.

    Returns:
        A value in [0, 1], or None when the prompt asks for nothing new.
    """
    return truth.edit_accuracy(prompt.attributes, reference_words(concept.reference), read_words(reading))


def mask_iou(reading: Reading, clip: RenderedClip) -> Measurement:
    """Intersection over union of the read masks and a clip's true ones, all subjects together."""
    told = np.zeros(clip.subject_mask.shape, dtype=bool)
    for one in reading.subjects:
        told |= one.mask
    return truth.mask_iou(told, clip.subject_mask)


@dataclass(frozen=True)
class Scores:
    """The truth metrics of one sample; None where a metric does not apply.

    Attributes:
        identity_accuracy: in [0, 1].
        motion_fidelity: in [-1, 1].
        edit_accuracy: in [0, 1].
    """

    identity_accuracy: float | None
    motion_fidelity: float | None
    edit_accuracy: float | None


def keeps_motion(prompt: EditingPrompt) -> bool:
    """Whether the reference's motion and camera are to be kept."""
    return "camera" not in prompt.attributes and "motion" not in prompt.attributes


def keeps_look(prompt: EditingPrompt) -> bool:
    """Whether the reference's look is to be kept; whoever changes it as asked is, by the gallery, somebody else."""
    return not {"colour", "texture", "shape"} & set(prompt.attributes)


def score(frames: Frames, concept: Gizmo, prompt: EditingPrompt, judge: Judge, gallery: Gallery) -> Scores:
    """Score one sample.

    Args:
        frames: the sample, shape (T, 64, 64, 3), uint8.
        concept: the gizmo that was asked for.
        prompt: the prompt.
        judge: who reads.
        gallery: of the same judge.

    Returns:
        The scores.
    """
    reading = judge.read(frames)
    return Scores(
        identity_accuracy(reading, concept.index, gallery).value if keeps_look(prompt) else None,
        motion_fidelity(reading, concept).value if keeps_motion(prompt) else None,
        edit_accuracy(reading, concept, prompt).value,
    )


def edited_scene(concept: Gizmo, prompt: EditingPrompt) -> Scene:
    """The scene that a prompt asks for.

    Args:
        concept: the gizmo.
        prompt: one of its editing prompts.

    Returns:
        The reference scene with the attributes asked for.
    """
    scene, asked = concept.reference, prompt.attributes
    subject = scene.subjects[0]
    subject = replace(
        subject,
        colour=asked.get("colour", subject.colour),
        accessory=asked.get("accessory", subject.accessory),
        texture=asked.get("texture", subject.texture),
        shape=asked.get("shape", subject.shape),
    )
    return changed_world(replace(scene, subjects=(subject,)), prompt)


def changed_world(scene: Scene, prompt: EditingPrompt) -> Scene:
    """The scene with background, light and camera as a prompt asks for them; its subjects as they are."""
    asked = prompt.attributes
    camera = Camera(asked["camera"], _CAMERA_AMOUNTS[asked["camera"]]) if "camera" in asked else scene.camera
    return replace(
        scene,
        backdrop=replace(scene.backdrop, name=asked.get("background", scene.backdrop.name)),
        light=asked.get("light", scene.light),
        camera=camera,
    )
