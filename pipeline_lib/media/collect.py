"""Finds the clips and images of a concept in a file or a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.errors import MediaError
from pipeline_lib.media.limits import DEFAULT_LIMITS, MediaLimits
from pipeline_lib.media.sniff import sniff

CLIP_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".apng", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts",
    ".wmv", ".asf", ".flv", ".ogv", ".ogg", ".3gp", ".3g2", ".mxf", ".y4m",
})  # fmt: skip
IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif",
})  # fmt: skip


@dataclass(frozen=True)
class MediaFiles:
    """The media of one concept, each list sorted by name."""

    clips: tuple[Path, ...]
    images: tuple[Path, ...]


def collect(path: Path, limits: MediaLimits = DEFAULT_LIMITS) -> MediaFiles:
    """The media at a path: a file, or the files directly in a folder.

    Hidden files and files of other kinds in a folder are ignored. Whether a file is a clip or an image
    is told by its first bytes; animated pictures are clips.

    Args:
        path: a file or a folder.
        limits: caps on the number and the size of files.

    Returns:
        At least one clip or image.

    Raises:
        MediaError: nothing there, nothing usable there, or too many files.
    """
    path = Path(path)
    if not path.exists():
        raise MediaError(f"{path} does not exist", fix="check the path")
    known = CLIP_SUFFIXES | IMAGE_SUFFIXES
    if path.is_dir():
        files = sorted(item for item in path.iterdir() if not item.name.startswith(".") and item.is_file())
        found = [item for item in files if item.suffix.lower() in known]
    else:
        found = [path]
    if not found:
        raise MediaError(
            f"{path} holds no media",
            got=", ".join(sorted({item.suffix or item.name for item in files})[:8]) or "an empty folder",
            fix="put one clip (mp4, mov, mkv, webm, avi, gif) or some images (jpg, png, webp) directly into it",
        )
    if len(found) > limits.files:
        raise MediaError(
            f"{path} holds too many files",
            got=f"{len(found)}",
            expected=f"at most {limits.files}",
            fix="keep the best ones",
        )
    kinds = [(item, sniff(item, limits)) for item in found]
    return MediaFiles(
        clips=tuple(item for item, kind in kinds if kind != "image"),
        images=tuple(item for item, kind in kinds if kind == "image"),
    )
