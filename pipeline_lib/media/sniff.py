"""Still picture or moving one, by the first bytes: names of strangers' files prove nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pipeline_lib.errors import MediaError
from pipeline_lib.media.limits import MediaLimits

_STILL_BRANDS = (b"avif", b"heic", b"heix", b"mif1")
_HEAD_BYTES = 4096


def sniff(path: Path, limits: MediaLimits) -> Literal["image", "video", "animation"]:
    """What a file most likely is; "animation" is an animated WebP or PNG.

    Args:
        path: of the user's file.
        limits: the largest size.

    Returns:
        A guess from the first bytes; only decoding tells whether the file is sound.

    Raises:
        MediaError: missing, a folder, not a regular file, empty, too large, or plain text.
    """
    head = _checked_head(path, limits)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        # Bit 1 of the VP8X flags: the file holds an animation.
        return "animation" if head[12:16] == b"VP8X" and head[20] & 0x02 else "image"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "animation" if b"acTL" in head else "image"
    if head[:3] == b"\xff\xd8\xff" or head[:4] in (b"II*\x00", b"MM\x00*") or head[:2] == b"BM":
        return "image"
    if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS:
        return "image"
    if _is_text(head):
        raise MediaError(
            f"{path.name} is text, not media", got=repr(head[:24].decode("utf-8", "replace")),
            fix="give a video (mp4, mov, mkv, webm, avi, gif) or an image (jpg, png, webp)",
        )  # fmt: skip
    return "video"


def _checked_head(path: Path, limits: MediaLimits) -> bytes:
    if not path.exists():
        raise MediaError(f"{path} does not exist", fix="check the path")
    if path.is_dir():
        raise MediaError(f"{path} is a folder", expected="a file", fix="give one of the files in it")
    if not path.is_file():
        raise MediaError(f"{path} is not a regular file", expected="a file on disk", fix="copy it to a file first")
    size = path.stat().st_size
    if size == 0:
        raise MediaError(f"{path.name} is empty (0 bytes)", fix="copy or export it again")
    if size > limits.file_bytes:
        raise MediaError(
            f"{path.name} is too large", got=f"{size:,} bytes", expected=f"at most {limits.file_bytes:,}",
            fix="cut the part that shows the subject into a file of its own",
        )  # fmt: skip
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        raise MediaError(f"{path.name} cannot be read", got=str(error), fix="check its permissions") from error


def _is_text(head: bytes) -> bool:
    if b"\x00" in head:
        return False
    try:
        text = head[: _HEAD_BYTES - 4].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)
