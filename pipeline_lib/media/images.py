"""Loads one image through a limited child."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.errors import MediaError
from pipeline_lib.media.child import run_to_end
from pipeline_lib.media.identity import clean_name, file_digest
from pipeline_lib.media.limits import MediaLimits
from pipeline_lib.records import SourceFacts

_CHILD = Path(__file__).with_name("image_child.py")


@dataclass(frozen=True)
class LoadedImage:
    """An image that was read to its end.

    Attributes:
        facts: size as shown, upright.
        pixels: (height, width, 3) uint8, fitted to the wanted size; (0, 0, 3) where none was wanted.
        notes: what was converted.
    """

    facts: SourceFacts
    pixels: NDArray[np.uint8]
    notes: tuple[str, ...]


def load_image(path: Path, size: tuple[int, int] | None, limits: MediaLimits) -> LoadedImage:
    """Reads an image: upright by its EXIF tag, on white where transparent, in 8-bit sRGB.

    Args:
        path: of the image.
        size: height and width to fit it to; None reads it for its facts only.
        limits: caps.

    Returns:
        The image, its facts, and what was converted.

    Raises:
        MediaError: it cannot be read to its end, or is too large.
    """
    height, width = size or (0, 0)
    wanted = [str(height), str(width)] if size else []
    command = [sys.executable, "-I", str(_CHILD), str(path.absolute()), str(limits.frame_pixels), *wanted]
    line, _, pixels = run_to_end(command, limits.child, path.name).partition(b"\n")
    answer = _checked(line, path)
    notes = tuple(answer.pop("notes"))
    facts = SourceFacts(name=clean_name(path), sha256=file_digest(path), kind="image", **answer)
    return LoadedImage(facts, np.frombuffer(pixels, np.uint8).reshape(height, width, 3), notes)


@contextmanager
def animation_as_video(path: Path, limits: MediaLimits) -> Iterator[Path]:
    """A copy of an animated picture that every ffmpeg reads, gone when the block is left.

    Args:
        path: an animated WebP or PNG.
        limits: caps.

    Yields:
        The copy's path.

    Raises:
        MediaError: it cannot be read to its end, or is too large.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"{path.name}.mkv"
        command = [sys.executable, "-I", str(_CHILD), str(path.absolute()), str(limits.frame_pixels), str(copy)]
        _checked(run_to_end(command, limits.child, path.name), path)
        yield copy


def _checked(line: bytes, path: Path) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise MediaError(
            f"{path.name} cannot be read as an image",
            got=answer["error"],
            fix="copy or export it again as PNG or JPEG",
        )
    return answer
