"""High dynamic range to standard: PQ or HLG in BT.2020 to gamma-coded BT.709."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# SMPTE ST 2084.
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
# ITU-R BT.2100, HLG.
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073
# ITU-R BT.2087: linear BT.2020 to linear BT.709.
_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)  # fmt: skip
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)
# ITU-R BT.2408: diffuse white of HDR pictures, cd/m2; 1000 is the usual peak of a graded picture.
_WHITE, _PEAK, _KNEE = 203.0, 1000.0, 0.6


def pq_to_light(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Light in cd/m2 of a PQ signal in [0, 1] (ST 2084)."""
    power = np.power(np.clip(signal, 0, 1), 1 / _M2)
    light = np.power(np.maximum(power - _C1, 0) / (_C2 - _C3 * power), 1 / _M1)
    return np.asarray(10_000 * light, np.float32)


def hlg_to_light(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Light in cd/m2, on a display of 1000 cd/m2, of an HLG signal in [0, 1], (..., 3) (BT.2100)."""
    signal = np.clip(signal, 0, 1)
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - _C) / _A) + _B) / 12)
    luminance = (scene @ _LUMINANCE)[..., None]
    return np.asarray(_PEAK * np.power(np.maximum(luminance, 1e-6), 0.2) * scene, np.float32)


def roll_off(luminance: NDArray[np.float32]) -> NDArray[np.float32]:
    """Squeezes light, where 1 is diffuse white, into [0, 1]: unchanged up to a knee, then ever flatter.

    Above the knee it is Reinhard's extended curve, which starts with slope 1 and takes the peak to 1.
    """
    above = np.maximum(luminance - _KNEE, 0) / (1 - _KNEE)
    white = (_PEAK / _WHITE - _KNEE) / (1 - _KNEE)
    squeezed = _KNEE + (1 - _KNEE) * above * (1 + above / white**2) / (1 + above)
    return np.asarray(np.where(luminance <= _KNEE, luminance, squeezed), np.float32)


def tone_map(frame: NDArray[np.uint16], transfer: int) -> NDArray[np.uint8]:
    """One HDR frame as a standard picture.

    Up to well below diffuse white light is kept as it is; highlights are rolled off by their luminance,
    so colours keep their hue.

    Args:
        frame: (height, width, 3) uint16, full range, PQ or HLG coded, BT.2020.
        transfer: 16 for PQ, 18 for HLG (ITU-T H.273).

    Returns:
        (height, width, 3) uint8, BT.709 primaries, sRGB curve.
    """
    signal = np.divide(frame, 65535, dtype=np.float32)
    light = (pq_to_light(signal) if transfer == 16 else hlg_to_light(signal)) / _WHITE
    luminance = np.asarray(light @ _LUMINANCE, np.float32)[..., None]
    light = light * (roll_off(luminance) / np.maximum(luminance, 1e-6))
    linear = np.clip(light @ _TO_BT709.T, 0, 1)
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.power(linear, 1 / 2.4) - 0.055)
    return np.asarray(np.rint(coded * 255), np.uint8)
