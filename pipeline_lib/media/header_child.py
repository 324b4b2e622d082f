"""Reads the header of a media file with PyAV and prints it as JSON: run as a script, in a limited child.

Usage: `python -I header_child.py FILE FORMATS`. It imports nothing of the library, so it starts fast, and
a crash of the demuxer is a crash of this process alone.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import av
from av.stream import Disposition


def main(path: str, formats: str) -> dict[str, Any]:
    """The header of the file, or `{"error": kind, "detail": text}`."""
    options = {"protocol_whitelist": "file", "format_whitelist": formats}
    try:
        container = av.open(path, options=options)
    except av.FFmpegError as error:
        return {"error": "open", "detail": error.strerror or str(error)}
    with container:
        streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        if not streams:
            return {"error": "no video", "detail": f"{len(container.streams.audio)} audio streams"}
        # A file may carry several renditions: the largest is the one to learn from.
        stream = max(streams, key=lambda item: (item.codec_context.width * item.codec_context.height, -item.index))
        stream.codec_context.thread_count = 2
        return _header(container, stream) | {"num_video_streams": len(streams)}


def _header(container: Any, stream: Any) -> dict[str, Any]:
    context = stream.codec_context
    pixel_format = context.format
    ratio = stream.sample_aspect_ratio
    seconds = float(stream.duration * stream.time_base) if stream.duration else 0.0
    return {
        "container": container.format.name,
        "stream": stream.index,
        "codec": context.name,
        "width": context.width,
        "height": context.height,
        "sample_aspect_ratio": float(ratio) if ratio else 1.0,
        "frames_per_second": float(stream.average_rate or 0),
        "seconds": seconds or (container.duration or 0) / 1e6,
        "pixel_format": pixel_format.name if pixel_format else "",
        "bit_depth": max((part.bits for part in pixel_format.components), default=8) if pixel_format else 8,
        "has_alpha": bool(pixel_format) and any(part.is_alpha for part in pixel_format.components),
        "transfer": int(context.color_trc or 2),
        "matrix": int(context.colorspace if context.colorspace is not None else 2),
        "rotation": _rotation(container, stream),
    }


def _rotation(container: Any, stream: Any) -> int:
    """Degrees anticlockwise that a player turns the picture by; only a decoded frame tells."""
    try:
        frame = next(container.decode(stream), None)
    except av.FFmpegError:
        return 0
    return int(frame.rotation) % 360 if frame is not None else 0


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], sys.argv[2])))
