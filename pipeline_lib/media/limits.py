"""Caps on what a stranger's file may cost."""

from __future__ import annotations

from dataclasses import dataclass, field

GIBIBYTE = 1024**3


@dataclass(frozen=True, kw_only=True)
class ChildLimits:
    """What one decoding child may use.

    Attributes:
        memory_bytes: address space.
        cpu_seconds: processor time over all threads.
        wall_seconds: time from start to end.
    """

    memory_bytes: int = 6 * GIBIBYTE
    cpu_seconds: int = 1200
    wall_seconds: float = 600.0


@dataclass(frozen=True, kw_only=True)
class MediaLimits:
    """Caps on files; beyond them is a :class:`~pipeline_lib.errors.MediaError`.

    Attributes:
        file_bytes: size of one file.
        frame_pixels: pixels of one frame of a video, or of an image.
        decoded_frames: frames of one video, counted while decoding.
        seconds: duration of one video.
        files: clips and images of one concept.
        kept_bytes: memory of the frames kept of one clip; a longer clip is cut there, with a note.
        child: limits of each decoding child.
    """

    file_bytes: int = 4 * GIBIBYTE
    frame_pixels: int = 8192 * 8192
    decoded_frames: int = 20_000
    seconds: float = 900.0
    files: int = 1_000
    kept_bytes: int = GIBIBYTE
    child: ChildLimits = field(default_factory=ChildLimits)


DEFAULT_LIMITS = MediaLimits()
