"""What a media file is, by decoding it."""

from __future__ import annotations

from pathlib import Path

from pipeline_lib.media.images import load_image
from pipeline_lib.media.limits import DEFAULT_LIMITS, MediaLimits
from pipeline_lib.media.sniff import sniff
from pipeline_lib.media.source import open_video
from pipeline_lib.records import SourceFacts


def probe(path: Path, limits: MediaLimits = DEFAULT_LIMITS) -> SourceFacts:
    """Facts of a clip or an image; frames are counted and timed by decoding, in limited children.

    Width and height are as a player shows the picture: upright, in square pixels.

    Args:
        path: a file.
        limits: caps on it.

    Returns:
        The facts; a video of one frame is an image.

    Raises:
        MediaError: the file cannot be used; the message names it and the fix.
    """
    path = Path(path)
    if sniff(path, limits) == "image":
        return load_image(path, None, limits).facts
    with open_video(path, limits) as source:
        return source.facts
