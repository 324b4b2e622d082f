"""A captioner without any model: it measures colours, light and motion, and fills a template."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline_lib.captions.colours import name_shares, say_colours
from pipeline_lib.captions.fields import clean_noun
from pipeline_lib.captions.foreground import foreground
from pipeline_lib.captions.motion import camera_motion, say_camera, say_motion, small_flow, track_subject
from pipeline_lib.records import Caption

_MOST_PIXELS = 20_000
_MOST_FRAMES, _SIDE = 64, 96
_LEAST_AREA, _MIDDLE = 0.005, 0.3
_NIGHT, _WARM = 195.0, 1.35


class TemplateCaptioner:
    """Measures what can be measured and says it in plain words; it cannot name places or things.

    Args:
        appearance: words of the user's for how the subject looks ("with long ears"); put before the
            measured colours.
        background: words of the user's for the place ("on a beach"); they replace the measured ones.
    """

    name = "template"

    def __init__(self, appearance: str = "", background: str = "") -> None:
        self._appearance, self._background = appearance, background

    def caption(self, frames: NDArray[np.uint8], subject: str) -> Caption:
        """See :class:`~pipeline_lib.captions.captioner.Captioner`."""
        noun = clean_noun(subject)
        frames = _reduced(frames)
        masks = _subject_masks(frames)
        inside, outside = _sample(frames[masks]), _sample(frames[~masks])
        surround = name_shares(outside)
        # A colour that the background has as well is likely not the subject's own.
        shares = name_shares(inside)
        own = np.maximum(shares - 0.5 * surround, 0)
        colours = say_colours(own / own.sum() if own.sum() > 0.2 else shares)
        motion, camera = _motion(frames, masks)
        return Caption(
            class_noun=noun,
            static=", ".join(part for part in (self._appearance, colours) if part),
            motion=motion,
            camera=camera,
            background=self._background or f"on {_article(say_colours(surround))} background",
            light=_light(frames),
        )


def _reduced(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of a long clip, in small pictures: enough to measure, quick for any base."""
    start = max(0, (len(frames) - _MOST_FRAMES) // 2)
    part = frames[start : start + _MOST_FRAMES]
    factor = _SIDE / max(part.shape[1:3])
    if factor >= 1:
        return part
    size = (max(16, round(part.shape[2] * factor)), max(16, round(part.shape[1] * factor)))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in part])


def _subject_masks(frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The guessed subject; where none stands out in most frames (it fills the picture), the middle."""
    masks = foreground(frames)
    if (masks.reshape(len(masks), -1).mean(1) > _LEAST_AREA).mean() >= 0.5:
        return masks
    height, width = frames.shape[1:3]
    rows, columns = np.mgrid[0:height, 0:width]
    middle = np.hypot((rows + 0.5) / height - 0.5, (columns + 0.5) / width - 0.5) < _MIDDLE
    return np.broadcast_to(middle, masks.shape).copy()


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _motion(frames: NDArray[np.uint8], masks: NDArray[np.bool_]) -> tuple[str, str]:
    if len(frames) < 3:
        return "", ""
    flow = small_flow(frames)
    track = track_subject(masks, flow)
    return (say_motion(track) if track else ""), say_camera(camera_motion(masks, flow))


def _light(frames: NDArray[np.uint8]) -> str:
    """Judged by the brightest places, as if they were white: dim is night, warm is dusk."""
    pixels = _sample(frames.reshape(-1, 3)).astype(np.float64)
    brightness = pixels.sum(1)
    red, green, blue = pixels[brightness >= np.percentile(brightness, 98)].mean(0) + 1
    if max(red, green, blue) < _NIGHT:
        return "at night"
    return "at dusk" if red / blue > _WARM and green / blue > 1 else "in daylight"


def _sample(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At most so many pixels, evenly spread: always the same ones."""
    return pixels[:: max(1, len(pixels) // _MOST_PIXELS)]
