"""Pictures without a subject: backgrounds alone, natural pictures, noise and blobs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline_lib.pocket.pictures import natural_picture
from pipeline_lib.world.render import render
from pipeline_lib.world.sampling import sample_backdrop, sample_light, scene_generator
from pipeline_lib.world.scene import Camera, Scene
from pipeline_lib.world.vocabulary import FRAME_SIZE, PALETTE

Pixels = npt.NDArray[np.uint8]
KINDS = ("background", "natural", "noise", "blobs")


def _as_bytes(image: npt.NDArray[np.float32]) -> Pixels:
    return (np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _background(rng: np.random.Generator) -> Pixels:
    scene = Scene((), sample_backdrop(rng), sample_light(rng), Camera("static", 0.0), 1)
    return render(scene).frames[0]


def _noise(rng: np.random.Generator) -> Pixels:
    if rng.random() < 0.5:
        return rng.integers(0, 256, (FRAME_SIZE, FRAME_SIZE, 3)).astype(np.uint8)
    normal = rng.standard_normal((FRAME_SIZE, FRAME_SIZE, 3)).astype(np.float32)
    return _as_bytes(rng.uniform(0.2, 0.8) + rng.uniform(0.05, 0.35) * normal)


def _blobs(rng: np.random.Generator) -> Pixels:
    """Soft coloured ellipses without eyes, rim or pattern, on a background or on plain colour."""
    plain = np.broadcast_to(rng.random(3, dtype=np.float32), (FRAME_SIZE, FRAME_SIZE, 3))
    image = (_background(rng) / 255.0 if rng.random() < 0.6 else plain).astype(np.float32)
    axis = np.arange(FRAME_SIZE, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    inks = list(PALETTE.values())
    for _ in range(int(rng.integers(1, 4))):
        centre_x, centre_y = rng.uniform(8, 56, 2)
        width, height = rng.uniform(5, 20, 2)
        softness = rng.uniform(0.15, 0.9)
        distance = np.hypot((x - centre_x) / width, (y - centre_y) / height) - 1.0
        opacity = np.clip(0.5 - distance / softness, 0.0, 1.0)[..., None]
        ink = np.asarray(inks[int(rng.integers(len(inks)))], dtype=np.float32) * rng.uniform(0.4, 1.0)
        image = image + (ink - image) * opacity
    return _as_bytes(image)


_DRAWS = {"background": _background, "natural": natural_picture, "noise": _noise, "blobs": _blobs}


def distractor(kind: str, seed: int, index: int) -> Pixels:
    """Draw one picture without a subject.

    Args:
        kind: one of ``KINDS``.
        seed: seed of the set.
        index: which picture.

    Returns:
        RGB, shape (64, 64, 3), uint8.
    """
    return _DRAWS[kind](scene_generator(seed, index, stream=40 + KINDS.index(kind)))
