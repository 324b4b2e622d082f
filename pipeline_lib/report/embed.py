"""Files as data URIs, so that a page needs nothing beside it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.errors import InputError

_TYPES = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}


@dataclass(frozen=True)
class Embedded:
    """A picture or a video inside the page.

    Attributes:
        uri: `data:` URI.
        is_video: whether it moves.
    """

    uri: str
    is_video: bool


def embed(path: Path) -> Embedded:
    """The file as a data URI.

    Args:
        path: of a picture or video.

    Returns:
        The URI, and whether it is a video.

    Raises:
        InputError: it is missing, or of no type that a browser shows.
    """
    media_type = _TYPES.get(path.suffix.lower())
    if media_type is None:
        raise InputError(
            f"{path.name} cannot be shown in a report", got=path.suffix or "no suffix", expected=", ".join(_TYPES)
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read for the report", got=str(error)) from error
    return Embedded(data_uri(content, media_type), media_type.startswith("video/"))


def data_uri(content: bytes, media_type: str) -> str:
    """Bytes of a type as a `data:` URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
