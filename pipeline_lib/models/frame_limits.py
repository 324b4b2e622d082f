"""Whether a base can take or make a video of some length and size; the error names the nearest that it can."""

from __future__ import annotations

from pipeline_lib.errors import InputError
from pipeline_lib.records import FrameRules


def check_video(what: str, num_frames: int, width: int, height: int, rules: FrameRules) -> None:
    """Checks length and size of a video.

    Args:
        what: what is wrong if something is, e.g. "the base cannot make this video".
        num_frames: its length; a base takes 1 + k * frame_multiple.
        width: in pixels; a base takes multiples of size_multiple.
        height: likewise.
        rules: of the base.

    Raises:
        InputError: no such length or size; names the nearest ones.
    """
    chunk, size = rules.frame_multiple, rules.size_multiple
    near = []
    if num_frames < 1 or (num_frames - 1) % chunk:
        near.append(f"{_nearest(num_frames - 1, chunk, least=0, offset=1)} frames")
    for name, side in (("width", width), ("height", height)):
        if side < 1 or side % size:
            near.append(f"{name} {_nearest(side, size, least=size)}")
    if near:
        raise InputError(
            what,
            got=f"{num_frames} frames of {width}×{height}",
            expected=f"1 + {chunk}k frames, sides that are multiples of {size}",
            fix=f"the nearest: {', '.join(near)}",
        )


def _nearest(value: int, step: int, *, least: int, offset: int = 0) -> str:
    """The multiples of `step` on both sides of a value, none below `least`, each raised by `offset`."""
    below = max(value // step * step, least)
    above = below + step if below < value else below
    return " or ".join(str(near + offset) for near in dict.fromkeys((below, above)))
