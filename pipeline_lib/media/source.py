"""A video file made ready for decoding: checked, surveyed, with its facts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.media.header import read_header
from pipeline_lib.media.identity import clean_name, file_digest
from pipeline_lib.media.images import animation_as_video
from pipeline_lib.media.limits import MediaLimits
from pipeline_lib.media.sniff import sniff
from pipeline_lib.media.survey import Survey, survey
from pipeline_lib.records import SourceFacts


@dataclass(frozen=True)
class VideoSource:
    """A surveyed video.

    Attributes:
        path: of the file to decode.
        seen: its survey.
        facts: of the user's file.
    """

    path: Path
    seen: Survey
    facts: SourceFacts


@contextmanager
def open_video(path: Path, limits: MediaLimits) -> Iterator[VideoSource]:
    """Surveys a video; animated WebP and PNG, which not every ffmpeg reads or times right, through a copy.

    Args:
        path: the user's file.
        limits: caps.

    Yields:
        The source; its file may be gone after the block.

    Raises:
        MediaError: the file cannot be used.
    """
    if sniff(path, limits) != "animation":
        yield _source(path, path, limits)
        return
    with animation_as_video(path, limits) as copy:
        yield _source(path, copy, limits)


def _source(path: Path, file: Path, limits: MediaLimits) -> VideoSource:
    seen = survey(file, read_header(file, limits), limits)
    header, count = seen.header, len(seen.times)
    height, width = header.display_size
    facts = SourceFacts(
        name=clean_name(path),
        sha256=file_digest(path),
        kind="video" if count > 1 else "image",
        container=header.container if file == path else "animation",
        codec=header.codec if file == path else path.suffix.lstrip(".").lower(),
        width=round(width),
        height=round(height),
        rotation=header.rotation,
        frames_per_second=round((count - 1) / float(seen.times[-1]), 6) if count > 1 and seen.times[-1] > 0 else 0.0,
        num_frames=count,
        seconds=round(seen.seconds, 6),
        bit_depth=header.bit_depth,
        hdr=header.hdr,
        variable_rate=seen.variable_rate,
    )
    return VideoSource(file, seen, facts)
