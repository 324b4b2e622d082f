"""The words of the pocket world and what they look like."""

from __future__ import annotations

from itertools import product

import numpy as np

FRAME_SIZE = 64
NUM_FRAMES = 13
FRAMES_PER_SECOND = 8

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "moon")
TEXTURES = ("plain", "striped", "dotted", "checkered")
ACCESSORIES = ("none", "hat", "scarf", "glasses", "balloon")
MOTIONS = (
    "still",
    "bouncing",
    "spinning",
    "swaying",
    "sliding left",
    "sliding right",
    "pulsing",
    "orbiting",
    "zigzagging",
    "shaking",
)
BACKGROUNDS = ("beach", "forest", "snow", "city", "desert", "underwater", "room", "space")
LIGHTS = ("day", "dusk", "night")
CAMERAS = ("static", "pan left", "pan right", "zoom in")
LOOKS = ("flat", "outline")

PALETTE: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.12, 0.12),
    "orange": (1.00, 0.52, 0.05),
    "yellow": (0.98, 0.88, 0.15),
    "green": (0.15, 0.68, 0.22),
    "cyan": (0.20, 0.88, 0.90),
    "blue": (0.14, 0.28, 0.92),
    "purple": (0.52, 0.16, 0.72),
    "pink": (1.00, 0.55, 0.78),
    "brown": (0.46, 0.27, 0.12),
    "white": (0.96, 0.96, 0.96),
}
COLOURS = tuple(PALETTE)

LIGHT_TINTS: dict[str, tuple[float, float, float]] = {
    "day": (1.0, 1.0, 1.0),
    "dusk": (1.02, 0.78, 0.62),
    "night": (0.48, 0.54, 0.76),
}

# A softer palette for the second look, used by the style-tuned sibling base.
OUTLINE_PALETTE: dict[str, tuple[float, float, float]] = {
    name: (0.35 + 0.6 * red, 0.35 + 0.6 * green, 0.35 + 0.6 * blue) for name, (red, green, blue) in PALETTE.items()
}

_HELD_OUT_SEED = 20260
_HELD_OUT_SHARE = 0.10


def _draw_held_out_triples() -> frozenset[tuple[str, str, str]]:
    triples = list(product(SHAPES, COLOURS, TEXTURES))
    order = np.random.Generator(np.random.Philox(_HELD_OUT_SEED)).permutation(len(triples))
    count = round(_HELD_OUT_SHARE * len(triples))
    return frozenset(triples[position] for position in order[:count])


HELD_OUT_TRIPLES: frozenset[tuple[str, str, str]] = _draw_held_out_triples()
"""The (shape, colour, texture) triples that training scenes never show: 10 % of all."""
