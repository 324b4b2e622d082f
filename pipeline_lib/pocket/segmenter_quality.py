"""How good the pocket segmenter is, measured through the seam on held-out scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline_lib.errors import InputError
from pipeline_lib.masks.clipseg import ClipSegSegmenter
from pipeline_lib.masks.segmenter import Segmenter
from pipeline_lib.pocket.segmenter_data import Seen, false_query, true_query
from pipeline_lib.pocket.world_settings import HELD_OUT_SEED
from pipeline_lib.world.render import render
from pipeline_lib.world.sampling import SceneMix, sample_scene, scene_generator

_FRAMES = (0, 6, 12)
_PAIRS = SceneMix(two_share=1.0)


def segmenter_figures(folder: Path, count: int = 256) -> dict[str, object]:
    """Overlap of found and true masks on held-out frames.

    Words are drawn as in training: a noun, often with a colour or a texture, sometimes the full phrase. Of a
    pair the true mask is that of all subjects that the words fit. A frame's overlap is intersection over union,
    1 where both masks are empty; a clip's is the mean of three frames.

    Args:
        folder: of the model and its processor.
        count: clips of the training mix; half as many with two subjects.

    Returns:
        ``value``, ``interval`` (95 %, over clips) and ``n`` clips of the mix; ``pairs``, the same of clips with
        two subjects; ``nothing``, the share of clips without what the words name in which no frame shows it.
    """
    segmenter = ClipSegSegmenter(folder)
    mixed = [_overlap(segmenter, index, None) for index in range(count)]
    pairs = [_overlap(segmenter, index, _PAIRS) for index in range(count // 2)]
    nothing = [_silence(segmenter, index) for index in range(count // 2)]
    return {**_mean(mixed), "pairs": _mean(pairs), "nothing": _mean(nothing)}


def frame_overlap(found: npt.NDArray[np.bool_], true: npt.NDArray[np.bool_]) -> float:
    """Intersection over union of two masks of one shape; 1 where both are empty."""
    either = np.logical_or(found, true).sum()
    return float(np.logical_and(found, true).sum() / either) if either else 1.0


def found_masks(segmenter: Segmenter, frames: npt.NDArray[np.uint8], words: str) -> npt.NDArray[np.bool_]:
    """Masks of a clip, all empty where the segmenter finds nothing, shape (T, H, W)."""
    try:
        return segmenter.segment(frames, words).masks >= 0.5
    except InputError:
        return np.zeros(frames.shape[:3], dtype=bool)


def _seen(index: int, mix: SceneMix | None) -> Seen:
    scene = sample_scene(HELD_OUT_SEED, index, mix)
    clip = render(scene)
    return Seen(scene, clip.frames[list(_FRAMES)], clip.masks[:, list(_FRAMES)])


def _overlap(segmenter: Segmenter, index: int, mix: SceneMix | None) -> float:
    seen, rng = _seen(index, mix), scene_generator(HELD_OUT_SEED, index, stream=24)
    query = true_query(seen.scene.subjects[int(rng.integers(len(seen.scene.subjects)))], rng)
    found = found_masks(segmenter, seen.frames, query.text)
    return float(np.mean([frame_overlap(found[frame], seen.target(query, frame)) for frame in range(len(_FRAMES))]))


def _silence(segmenter: Segmenter, index: int) -> float:
    seen = _seen(index, None)
    query = false_query(seen.scene, scene_generator(HELD_OUT_SEED, index, stream=25))
    return float(not found_masks(segmenter, seen.frames, query.text).any())


def _mean(values: list[float]) -> dict[str, object]:
    middle, half = float(np.mean(values)), 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5
    interval = [round(max(0.0, middle - half), 4), round(min(1.0, middle + half), 4)]
    return {"value": round(middle, 4), "interval": interval, "n": len(values)}
