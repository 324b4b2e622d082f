"""A captioner without any model: it measures colours, light and motion, and fills a template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
_LEAST_OWN = 0.2
_LEAST_AREA, _MIDDLE = 0.005, 0.3
_NIGHT, _WARM = 195.0, 1.35
_WHITE, _MOST_GAIN = 250.0, 2.5


class TemplateCaptioner:
    """Measures what can be measured and says it in plain words; it cannot name places or things.

    Args:
        appearance: words of the user's for how the subject looks ("with long ears"); put before the
            measured colours.
        background: words of the user's for the place ("on a beach"); they replace the measured ones.
    """

    name = "template"
    notes: tuple[str, ...] = ()

    def __init__(self, appearance: str = "", background: str = "") -> None:
        self._appearance, self._background = appearance, background

    def caption(self, frames: NDArray[np.uint8], subject: str, *, unordered: bool = False) -> Caption:
        """See :class:`~pipeline_lib.captions.captioner.Captioner`."""
        noun = clean_noun(subject)
        groups = [frame[None] for frame in frames] if unordered else [frames]
        looks = [_measure(_reduced(group)) for group in groups]
        shares = np.mean([look.colours for look in looks], axis=0)
        return Caption(
            class_noun=noun,
            static=", ".join(part for part in (self._appearance, say_colours(shares)) if part),
            motion=looks[0].motion,
            camera=looks[0].camera,
            background=self._background or _agreed([look.background for look in looks]),
            light=_agreed([look.light for look in looks]),
        )


@dataclass(frozen=True)
class _Look:
    """What was measured of one clip or picture; `colours` are shares of the subject's named colours."""

    colours: NDArray[np.float64]
    background: str
    light: str
    motion: str
    camera: str


def _measure(frames: NDArray[np.uint8]) -> _Look:
    masks, white = _subject_masks(frames), _white(frames)
    light = _light(white)
    seen = frames if light == "in daylight" else _in_daylight(frames, white)
    inside, surround = name_shares(_sample(seen[masks])), name_shares(_sample(seen[~masks]))
    # A colour that the background has as well is likely not the subject's own.
    own = np.maximum(inside - 0.5 * surround, 0)
    colours = own / own.sum() if own.sum() > _LEAST_OWN else inside
    background = f"on {_article(say_colours(surround))} background"
    return _Look(colours, background, light, *_motion(frames, masks))


def _agreed(words: Sequence[str]) -> str:
    """What all pictures of a set have in common; "" where they differ."""
    return words[0] if len(set(words)) == 1 else ""


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


def _white(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean colour of the brightest places, which are taken for white things under the clip's light."""
    pixels = _sample(frames.reshape(-1, 3)).astype(np.float64)
    brightness = pixels.sum(1)
    return np.asarray(pixels[brightness >= np.percentile(brightness, 98)].mean(0) + 1)


def _light(white: NDArray[np.float64]) -> str:
    """Dim is night, warm is dusk."""
    red, green, blue = white
    if white.max() < _NIGHT:
        return "at night"
    return "at dusk" if red / blue > _WARM and green / blue > 1 else "in daylight"


def _in_daylight(frames: NDArray[np.uint8], white: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The frames as they would look in white light, so that colours get the names people give them."""
    gain = np.clip(_WHITE / white, 1, _MOST_GAIN)
    return np.minimum(frames * gain, 255).astype(np.uint8)


def _sample(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At most so many pixels, evenly spread: always the same ones."""
    return pixels[:: max(1, len(pixels) // _MOST_PIXELS)]
