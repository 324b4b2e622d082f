"""The scene record: everything that determines a clip, as plain JSON-able data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline_lib.errors import InputError
from pipeline_lib.world.vocabulary import NUM_FRAMES

Wave = Literal["sine", "hop", "triangle", "square"]
SubjectKind = Literal["shape", "creature"]


@dataclass(frozen=True)
class Harmonic:
    """One periodic component: ``amplitude * wave(cycles * time + phase)``, time in [0, 1]."""

    wave: Wave
    amplitude: float
    cycles: float
    phase: float


@dataclass(frozen=True)
class Channel:
    """One number over time: ``drift * (time - 1/2)`` plus the harmonics."""

    drift: float = 0.0
    harmonics: tuple[Harmonic, ...] = ()


@dataclass(frozen=True)
class Motion:
    """How a subject moves.

    Attributes:
        name: A word of ``vocabulary.MOTIONS``, or ``"free"`` for a random motion.
        horizontal: Offset to the right, in half frames.
        vertical: Offset downwards, in half frames.
        angle: Rotation, clockwise on screen, in radians.
        size: Relative change of size (0 = as drawn).
        stretch: Squash and stretch: height grows by ``1 + stretch``, width shrinks likewise.
    """

    name: str
    horizontal: Channel = Channel()
    vertical: Channel = Channel()
    angle: Channel = Channel()
    size: Channel = Channel()
    stretch: Channel = Channel()


@dataclass(frozen=True)
class Part:
    """One fused part of a creature, in subject units (the body spans about [-1, 1]).

    Attributes:
        form: ``"ellipse"``, ``"box"`` or ``"triangle"``.
        x: Centre, to the right.
        y: Centre, downwards.
        width: Half width.
        height: Half height.
        angle: Rotation in radians.
        paint: 0 for the main colour and texture, 1 for the second colour.
    """

    form: str
    x: float
    y: float
    width: float
    height: float
    angle: float
    paint: int


@dataclass(frozen=True)
class Subject:
    """One subject: its look, its place and its motion.

    Attributes:
        kind: A plain shape or a composite creature.
        shape: A word of ``vocabulary.SHAPES``, or ``"creature"``.
        colour: Main colour word.
        second_colour: Colour word of pattern and secondary parts.
        texture: A word of ``vocabulary.TEXTURES``.
        texture_scale: Pattern frequency, 1 = usual.
        texture_angle: Pattern direction in radians.
        accessory: A word of ``vocabulary.ACCESSORIES``.
        accessory_colour: Colour word of the accessory.
        eyes: Number of eyes.
        antennae: Number of antennae.
        parts: The fused parts (creatures only).
        face: Where the eyes sit, in subject units (x, y).
        top: Where a hat sits, in subject units (x, y).
        position: Rest position of the centre, in half frames from the frame's centre (x, y).
        size: Half height as a fraction of the half frame.
        motion: How it moves.
    """

    kind: SubjectKind
    shape: str
    colour: str
    second_colour: str
    texture: str
    texture_scale: float
    texture_angle: float
    accessory: str
    accessory_colour: str
    eyes: int
    antennae: int
    parts: tuple[Part, ...]
    face: tuple[float, float]
    top: tuple[float, float]
    position: tuple[float, float]
    size: float
    motion: Motion


@dataclass(frozen=True)
class Backdrop:
    """A background word and the free numbers of its drawing (all independent of subjects)."""

    name: str
    horizon: float
    phase: float
    variety: float


@dataclass(frozen=True)
class Camera:
    """A camera word and how far it moves (half frames for pans, relative size for zooms)."""

    name: str
    amount: float


@dataclass(frozen=True)
class Scene:
    """A whole clip as data; the same scene always renders to the same bytes.

    Attributes:
        subjects: One or two subjects, painted in order.
        backdrop: What is behind them.
        light: A word of ``vocabulary.LIGHTS``.
        camera: How the camera moves.
        num_frames: Clip length in frames.
        look: ``"flat"`` or ``"outline"``.
    """

    subjects: tuple[Subject, ...]
    backdrop: Backdrop
    light: str
    camera: Camera
    num_frames: int = NUM_FRAMES
    look: str = "flat"

    def to_json(self) -> str:
        """Return the scene as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Scene:
        """Read a scene written by :meth:`to_json`.

        Args:
            text: JSON text.

        Returns:
            The scene.

        Raises:
            InputError: When the text is not a scene record.
        """
        try:
            return _scene_from(json.loads(text))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not a scene record: {error}") from error


def _channel_from(record: dict[str, Any]) -> Channel:
    harmonics = tuple(Harmonic(**harmonic) for harmonic in record["harmonics"])
    return Channel(drift=record["drift"], harmonics=harmonics)


def _motion_from(record: dict[str, Any]) -> Motion:
    channels = {key: _channel_from(value) for key, value in record.items() if key != "name"}
    return Motion(name=record["name"], **channels)


def _subject_from(record: dict[str, Any]) -> Subject:
    plain = dict(record)
    plain["parts"] = tuple(Part(**part) for part in record["parts"])
    plain["motion"] = _motion_from(record["motion"])
    for key in ("face", "top", "position"):
        plain[key] = tuple(record[key])
    return Subject(**plain)


def _scene_from(record: dict[str, Any]) -> Scene:
    return Scene(
        subjects=tuple(_subject_from(subject) for subject in record["subjects"]),
        backdrop=Backdrop(**record["backdrop"]),
        light=record["light"],
        camera=Camera(**record["camera"]),
        num_frames=record["num_frames"],
        look=record["look"],
    )
