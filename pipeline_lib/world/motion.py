"""Motions: the ten named ones, and random ones for creatures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pipeline_lib.world.scene import Channel, Harmonic, Motion, Wave

Array = npt.NDArray[np.float32]
_TWO_PI = 2.0 * np.pi


def _wave(wave: Wave, turns: Array) -> Array:
    if wave == "sine":
        return np.sin(_TWO_PI * turns)
    if wave == "hop":
        return np.abs(np.sin(np.pi * turns))
    if wave == "triangle":
        return 4.0 * np.abs((turns - 0.25) % 1.0 - 0.5) - 1.0
    return np.where(turns % 1.0 < 0.5, 1.0, -1.0).astype(np.float32)


def channel_values(channel: Channel, num_frames: int) -> Array:
    """Evaluate a channel at every frame.

    Args:
        channel: Drift and harmonics.
        num_frames: Number of frames; time runs from 0 to 1 over 13 frames whatever the length,
            so that a longer clip goes on with the same speed.

    Returns:
        Values, shape (num_frames,), float32.
    """
    time = (np.arange(num_frames) / 12.0).astype(np.float32)
    values = channel.drift * (time - 0.5)
    for harmonic in channel.harmonics:
        turns = harmonic.cycles * time + harmonic.phase
        values = values + harmonic.amplitude * _wave(harmonic.wave, turns)
    return values.astype(np.float32)


def _one(wave: Wave, amplitude: float, cycles: float, phase: float = 0.0) -> Channel:
    return Channel(harmonics=(Harmonic(wave, amplitude, cycles, phase),))


def _bouncing(rng: np.random.Generator) -> Motion:
    hops = rng.uniform(1.6, 2.6)
    return Motion("bouncing", vertical=_one("hop", -rng.uniform(0.38, 0.52), hops, rng.random()))


def _spinning(rng: np.random.Generator) -> Motion:
    turns = rng.uniform(0.9, 1.5) * rng.choice([-1.0, 1.0])
    return Motion("spinning", angle=Channel(drift=_TWO_PI * turns))


def _swaying(rng: np.random.Generator) -> Motion:
    swing = rng.uniform(0.38, 0.55)
    cycles, phase = rng.uniform(1.2, 1.9), rng.random()
    return Motion(
        "swaying",
        horizontal=_one("sine", 0.35 * swing, cycles, phase),
        angle=_one("sine", swing, cycles, phase),
    )


def _sliding(name: str, sign: float, rng: np.random.Generator) -> Motion:
    return Motion(name, horizontal=Channel(drift=sign * rng.uniform(0.85, 1.15)))


def _pulsing(rng: np.random.Generator) -> Motion:
    return Motion("pulsing", size=_one("sine", rng.uniform(0.2, 0.3), rng.uniform(1.5, 2.4), rng.random()))


def _orbiting(rng: np.random.Generator) -> Motion:
    radius, turns = rng.uniform(0.27, 0.36), rng.uniform(0.95, 1.4) * rng.choice([-1.0, 1.0])
    phase = rng.random()
    return Motion(
        "orbiting",
        horizontal=_one("sine", radius, turns, phase),
        vertical=_one("sine", radius, turns, phase + 0.25),
    )


def _zigzagging(rng: np.random.Generator) -> Motion:
    drift = rng.uniform(0.7, 0.95) * rng.choice([-1.0, 1.0])
    return Motion(
        "zigzagging",
        horizontal=Channel(drift=drift),
        vertical=_one("triangle", rng.uniform(0.22, 0.3), rng.uniform(2.0, 2.6), rng.random()),
    )


def _shaking(rng: np.random.Generator) -> Motion:
    return Motion(
        "shaking",
        horizontal=_one("triangle", rng.uniform(0.1, 0.14), 6.0, 0.25),
        angle=_one("triangle", rng.uniform(0.05, 0.1), 6.0, 0.25),
    )


_NAMED: dict[str, Callable[[np.random.Generator], Motion]] = {
    "still": lambda _rng: Motion("still"),
    "bouncing": _bouncing,
    "spinning": _spinning,
    "swaying": _swaying,
    "sliding left": lambda rng: _sliding("sliding left", -1.0, rng),
    "sliding right": lambda rng: _sliding("sliding right", 1.0, rng),
    "pulsing": _pulsing,
    "orbiting": _orbiting,
    "zigzagging": _zigzagging,
    "shaking": _shaking,
}


def named_motion(name: str, rng: np.random.Generator) -> Motion:
    """Draw one performance of a named motion.

    Args:
        name: A word of ``vocabulary.MOTIONS``.
        rng: Source of the free parameters.

    Returns:
        The motion.
    """
    return _NAMED[name](rng)


def _mixed(rng: np.random.Generator, amplitude: float, waves: tuple[Wave, ...]) -> Channel:
    harmonics = []
    for _ in range(int(rng.integers(1, 3))):
        wave = waves[int(rng.integers(len(waves)))]
        cycles = float(rng.choice([0.5, 1.0, 1.5, 2.0, 3.0]))
        strength = amplitude * rng.uniform(0.35, 1.0) / (0.6 + 0.4 * cycles)
        harmonics.append(Harmonic(wave, float(strength), cycles, float(rng.random())))
    return Channel(harmonics=tuple(harmonics))


def free_motion(rng: np.random.Generator) -> Motion:
    """Draw a random motion: mixed harmonics, hops, squash and stretch, half turns.

    Args:
        rng: Source of the draw.

    Returns:
        A motion named ``"free"``.
    """
    use = rng.random(5)
    horizontal = _mixed(rng, 0.4, ("sine", "triangle")) if use[0] < 0.65 else Channel()
    vertical = Channel()
    if use[1] < 0.7:
        hop = _one("hop", -rng.uniform(0.15, 0.45), rng.uniform(1.0, 4.0), rng.random())
        vertical = hop if rng.random() < 0.5 else _mixed(rng, 0.35, ("sine", "triangle"))
    angle = Channel()
    if use[2] < 0.55:
        turn = Channel(drift=rng.choice([-1.0, 1.0]) * rng.uniform(1.5, 5.0))
        angle = turn if rng.random() < 0.25 else _mixed(rng, 0.6, ("sine", "triangle", "square"))
    size = _mixed(rng, 0.2, ("sine",)) if use[3] < 0.25 else Channel()
    stretch = _mixed(rng, 0.35, ("sine", "triangle")) if use[4] < 0.5 else Channel()
    return Motion("free", horizontal, vertical, angle, size, stretch)
