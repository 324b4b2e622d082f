"""Pictures with natural statistics, so that the autoencoder is not blind to the real world."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline_lib.world.vocabulary import FRAME_SIZE

Array = npt.NDArray[np.float32]

# Photographs that packages already in use happen to ship: (package, path inside it).
_SHIPPED = (
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)


@functools.cache
def shipped_photographs() -> tuple[npt.NDArray[np.uint8], ...]:
    """Photographs found in installed packages, RGB uint8, possibly none."""
    found = []
    for package, inside in _SHIPPED:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        path = Path(spec.origin).parent / inside
        if path.exists():
            found.append(np.asarray(Image.open(path).convert("RGB")))
    return tuple(found)


def _coloured_noise(rng: np.random.Generator) -> Array:
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(FRAME_SIZE), np.fft.rfftfreq(FRAME_SIZE)))
    slope = rng.uniform(1.0, 2.2)
    weight = 1.0 / np.maximum(frequency.T, 1.0 / FRAME_SIZE) ** slope
    spectrum = np.fft.rfft2(rng.standard_normal((3, FRAME_SIZE, FRAME_SIZE)))
    noise = np.fft.irfft2(spectrum * weight, s=(FRAME_SIZE, FRAME_SIZE))
    noise = noise / noise.std(axis=(1, 2), keepdims=True)
    mixing = np.eye(3) * 0.4 + 0.6 * rng.uniform(0.2, 1.0)
    blended = np.tensordot(mixing, noise, axes=1) * rng.uniform(0.06, 0.2)
    return (blended + rng.uniform(0.2, 0.8, (3, 1, 1))).transpose(1, 2, 0).astype(np.float32)


def _dead_leaves(rng: np.random.Generator) -> Array:
    axis = np.arange(FRAME_SIZE, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    image = np.broadcast_to(rng.random(3, dtype=np.float32), (FRAME_SIZE, FRAME_SIZE, 3)).copy()
    base = rng.random(3)
    for _ in range(int(rng.integers(30, 90))):
        # Radii follow a power law: many small leaves, few large ones, as in photographs.
        radius = 2.0 / (1.0 - rng.random() * 0.93)
        cx, cy, tilt = rng.uniform(0, FRAME_SIZE), rng.uniform(0, FRAME_SIZE), rng.uniform(0.4, 1.6)
        distance = np.hypot((x - cx) * tilt, y - cy) - radius
        colour = np.clip(0.5 * base + 0.5 * rng.random(3) + rng.normal(0, 0.15, 3), 0, 1)
        shade = 1.0 + rng.uniform(-0.02, 0.02) * (y - cy)[..., None]
        opacity = np.clip(0.5 - distance, 0, 1)[..., None]
        image += (colour * shade - image) * opacity
    return image.astype(np.float32)


def _fractal(rng: np.random.Generator) -> Array:
    axis = np.linspace(-1.5, 1.5, FRAME_SIZE)
    z = (axis[None, :] + 1j * axis[:, None]) * rng.uniform(0.4, 1.1)
    c = 0.7885 * np.exp(2j * np.pi * rng.random()) * rng.uniform(0.85, 1.1)
    age = np.zeros(z.shape)
    for _ in range(24):
        alive = np.abs(z) < 4.0
        z = np.where(alive, z * z + c, z)
        age += alive
    phase = rng.random(3) * 6.28
    return (0.5 + 0.45 * np.sin(age[..., None] * rng.uniform(0.1, 0.4) + phase)).astype(np.float32)


def _photograph(rng: np.random.Generator) -> Array:
    photographs = shipped_photographs()
    if not photographs:
        return _dead_leaves(rng)
    picture = photographs[int(rng.integers(len(photographs)))]
    side = int(rng.integers(FRAME_SIZE, min(picture.shape[:2]) + 1))
    top = int(rng.integers(picture.shape[0] - side + 1))
    left = int(rng.integers(picture.shape[1] - side + 1))
    crop = Image.fromarray(picture[top : top + side, left : left + side])
    image = np.asarray(crop.resize((FRAME_SIZE, FRAME_SIZE), Image.Resampling.BOX)) / 255.0
    if rng.random() < 0.5:
        image = image[:, ::-1]
    image = image[..., rng.permutation(3)] if rng.random() < 0.3 else image
    return (image ** rng.uniform(0.7, 1.4) * rng.uniform(0.7, 1.1)).astype(np.float32)


def natural_picture(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw one picture: a photograph's crop, dead leaves, coloured noise or a fractal.

    Args:
        rng: source of the draw.

    Returns:
        RGB, shape (64, 64, 3), uint8.
    """
    draw = rng.random()
    if draw < 0.5:
        image = _photograph(rng)
    elif draw < 0.75:
        image = _dead_leaves(rng)
    elif draw < 0.92:
        image = _coloured_noise(rng)
    else:
        image = _fractal(rng)
    return (np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
