"""From a scene to pixels and exact truth: frames, masks and tracks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline_lib.errors import InputError
from pipeline_lib.world.backdrops import paint_backdrop
from pipeline_lib.world.motion import channel_values
from pipeline_lib.world.scene import Camera, Scene, Subject
from pipeline_lib.world.subjects import paint_subject
from pipeline_lib.world.vocabulary import FRAME_SIZE, LIGHT_TINTS, LOOKS

Array = npt.NDArray[np.float32]
# A pixel belongs to a subject from this share on; thin stalks and strings never cover half a pixel.
_VISIBLE = 0.3


@dataclass(frozen=True)
class SubjectTrack:
    """Where a subject is in each frame; all arrays have shape (T,).

    Attributes:
        x: Centre, pixels from the left edge.
        y: Centre, pixels from the top edge.
        angle: Clockwise rotation in radians.
        scale: Half height in pixels.
        stretch: Height over width, relative to rest (1 = rest).
    """

    x: Array
    y: Array
    angle: Array
    scale: Array
    stretch: Array


@dataclass(frozen=True)
class RenderedClip:
    """A rendered clip with its truth.

    Attributes:
        frames: RGB, shape (T, H, W, 3), uint8.
        masks: What is visible of each subject, shape (S, T, H, W), bool.
        tracks: One per subject.
    """

    frames: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.bool_]
    tracks: tuple[SubjectTrack, ...]

    @property
    def subject_mask(self) -> npt.NDArray[np.bool_]:
        """Union of the subjects' masks, shape (T, H, W)."""
        union: npt.NDArray[np.bool_] = np.any(self.masks, axis=0)
        return union


def _zoom(camera: Camera, num_frames: int) -> Array:
    time = (np.arange(num_frames) / 12.0).astype(np.float32)
    amount = camera.amount if camera.name == "zoom in" else 0.0
    return (1.0 + amount * time).astype(np.float32)


def _pan(camera: Camera, num_frames: int) -> Array:
    sign = {"pan left": -1.0, "pan right": 1.0}.get(camera.name, 0.0)
    return (sign * camera.amount * (np.arange(num_frames) / 12.0)).astype(np.float32)


def subject_track(scene: Scene, subject: Subject) -> SubjectTrack:
    """Compute where a subject of the scene is, without painting.

    Args:
        scene: The scene (its camera's zoom moves the subject; a pan follows it).
        subject: One of its subjects.

    Returns:
        The track.
    """
    count, motion = scene.num_frames, subject.motion
    zoom = _zoom(scene.camera, count)
    # The subject grows less than the background, so that it stays inside the frame.
    near = np.sqrt(zoom)
    x = subject.position[0] + channel_values(motion.horizontal, count)
    y = subject.position[1] + channel_values(motion.vertical, count)
    half = FRAME_SIZE / 2.0
    size = subject.size * np.clip(1.0 + channel_values(motion.size, count), 0.4, 1.8)
    return SubjectTrack(
        x=(half + half * x * near).astype(np.float32),
        y=(half + half * y * near).astype(np.float32),
        angle=channel_values(motion.angle, count),
        scale=(half * size * near).astype(np.float32),
        stretch=np.exp(2.0 * channel_values(motion.stretch, count)).astype(np.float32),
    )


def _reach(subject: Subject) -> float:
    """How far a subject extends from its centre, in subject units."""
    if subject.accessory in ("hat", "balloon"):
        return 1.95
    return 1.15 if subject.kind == "shape" and subject.accessory == "none" else 1.6


def _windows(subject: Subject, track: SubjectTrack) -> tuple[int, Array, Array]:
    """A square window per frame that holds the subject: its side and its left and top edges.

    Painting only the window is what makes rendering fast.
    """
    widest = track.scale * np.maximum(np.sqrt(track.stretch), 1.0 / np.sqrt(track.stretch))
    side = min(FRAME_SIZE, int(np.ceil(2.0 * _reach(subject) * float(widest.max()))) + 3)
    left = np.clip(np.round(track.x - side / 2.0), 0, FRAME_SIZE - side)
    top = np.clip(np.round(track.y - side / 2.0), 0, FRAME_SIZE - side)
    return side, left.astype(np.float32), top.astype(np.float32)


def _subject_coordinates(track: SubjectTrack, side: int, left: Array, top: Array) -> tuple[Array, Array, Array]:
    pixels = (np.arange(side) + 0.5).astype(np.float32)
    dx = pixels[None, None, :] + (left - track.x)[:, None, None]
    dy = pixels[None, :, None] + (top - track.y)[:, None, None]
    cosine, sine = np.cos(track.angle)[:, None, None], np.sin(track.angle)[:, None, None]
    scale, root = track.scale[:, None, None], np.sqrt(track.stretch)[:, None, None]
    x = (dx * cosine + dy * sine) * (root / scale)
    y = (dy * cosine - dx * sine) / (root * scale)
    return x, y, 1.0 / scale


def _compose(image: Array, visible: list[Array], subject: Subject, look: str, track: SubjectTrack) -> Array:
    """Paint a subject into ``image``, dim the masks it hides, and return its coverage."""
    side, left, top = _windows(subject, track)
    canvas = paint_subject(subject, *_subject_coordinates(track, side, left, top), look)
    coverage = np.zeros(image.shape[:3], dtype=np.float32)
    for frame, (x, y) in enumerate(zip(left.astype(int), top.astype(int), strict=True)):
        window = (frame, slice(y, y + side), slice(x, x + side))
        opacity = canvas.coverage[frame]
        image[window] += (canvas.colour[frame] - image[window]) * opacity[..., None]
        coverage[window] = opacity
    for below in range(len(visible)):
        visible[below] *= 1.0 - coverage
    return coverage


def _background(scene: Scene) -> Array:
    half = FRAME_SIZE / 2.0
    axis = ((np.arange(FRAME_SIZE) + 0.5 - half) / half).astype(np.float32)
    moving = scene.camera.name != "static" and scene.num_frames > 1
    count = scene.num_frames if moving else 1
    zoom = _zoom(scene.camera, count)[:, None, None]
    pan = _pan(scene.camera, count)[:, None, None]
    x, y = np.broadcast_arrays(axis[None, None, :] / zoom + pan, axis[None, :, None] / zoom)
    painted = paint_backdrop(scene.backdrop, x, y)
    if scene.look == "outline":
        grey = painted.mean(axis=-1, keepdims=True)
        painted = 0.45 + 0.5 * (0.5 * painted + 0.5 * grey)
    return np.broadcast_to(painted, (scene.num_frames, *painted.shape[1:])).copy()


def _masks(visible: list[Array], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Threshold what is visible; where two subjects share a pixel, the upper one has it."""
    masks = np.zeros((len(visible), *shape), dtype=bool)
    for position, coverage in enumerate(visible):
        masks[position] = coverage >= _VISIBLE
        masks[:position] &= ~masks[position]
    return masks


def render(scene: Scene) -> RenderedClip:
    """Render a scene; the same scene gives the same bytes.

    Args:
        scene: The scene record.

    Returns:
        Frames, masks and tracks at 64×64.

    Raises:
        InputError: When the look is unknown or there is no frame.
    """
    if scene.look not in LOOKS or scene.num_frames < 1:
        raise InputError(f"scene needs a look of {LOOKS} and ≥ 1 frame, got {scene.look!r}")
    image = _background(scene)
    visible: list[Array] = []
    tracks = tuple(subject_track(scene, subject) for subject in scene.subjects)
    for subject, track in zip(scene.subjects, tracks, strict=True):
        visible.append(_compose(image, visible, subject, scene.look, track))
    tint = np.asarray(LIGHT_TINTS[scene.light], dtype=np.float32)
    frames = np.clip(image * tint * 255.0 + 0.5, 0.0, 255.0).astype(np.uint8)
    return RenderedClip(frames=frames, masks=_masks(visible, frames.shape[:3]), tracks=tracks)
