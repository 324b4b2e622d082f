"""Student's interval of a mean: for a handful of independent values, where a bootstrap over them is too narrow."""

from __future__ import annotations

import math
from collections.abc import Sequence


def t_interval(values: Sequence[float], error_rate: float) -> tuple[float, float]:
    """The interval that misses the true mean at a given rate, where the values are drawn from a normal distribution.

    Args:
        values: independent, at least two.
        error_rate: of both sides together, e.g. 0.05.

    Returns:
        Low and high end.
    """
    count = len(values)
    mean = math.fsum(values) / count
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    reach = t_quantile(error_rate, count - 1) * spread / math.sqrt(count)
    return mean - reach, mean + reach


def t_quantile(error_rate: float, degrees: int) -> float:
    """What Student's t exceeds on either side at a given rate.

    Args:
        error_rate: of both sides together, in (0, 1).
        degrees: of freedom, at least 1.

    Returns:
        The quantile, to about 12 digits.
    """
    low, high = 0.0, math.pi / 2  # of atan(t / sqrt(degrees)), in which the share within grows from 0 to 1
    for _ in range(60):
        middle = (low + high) / 2
        if _share_within(middle, degrees) < 1 - error_rate:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(low)


def _share_within(angle: float, degrees: int) -> float:
    """P(|t| < sqrt(degrees) tan(angle)): Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for power in range(1 + odd, degrees, 2):
        total += term
        term *= power / (power + 1) * cosine**2
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
