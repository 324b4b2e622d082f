"""Shares with their intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

_Z = 1.96


@dataclass(frozen=True)
class Share:
    """A share of successes with its 95 % Wilson interval.

    Attributes:
        right: successes.
        count: trials.
    """

    right: int
    count: int

    @property
    def value(self) -> float | None:
        """Share in [0, 1]; None without trials."""
        return self.right / self.count if self.count else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Bounds of the interval; None without trials."""
        if not self.count:
            return None
        share, spread = self.right / self.count, _Z**2 / self.count
        middle = (share + spread / 2.0) / (1.0 + spread)
        half = _Z / (1.0 + spread) * math.sqrt(share * (1.0 - share) / self.count + spread / (4.0 * self.count))
        return max(0.0, middle - half), min(1.0, middle + half)

    def record(self) -> dict[str, object]:
        """As plain data for JSON."""
        interval = self.interval
        return {
            "value": None if self.value is None else round(self.value, 4),
            "interval": None if interval is None else [round(bound, 4) for bound in interval],
            "count": self.count,
        }


def mean_record(values: Sequence[float], digits: int = 4) -> dict[str, object]:
    """A mean with its 95 % interval (normal), as plain data for JSON.

    Args:
        values: one number for each clip or concept; they count alike.
        digits: decimals that are kept.

    Returns:
        ``value``, ``interval`` (None for a single number) and ``count``; None without numbers.
    """
    if not values:
        return {"value": None, "interval": None, "count": 0}
    mean = statistics.fmean(values)
    half = _Z * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    interval = None if half is None else [round(mean - half, digits), round(mean + half, digits)]
    return {"value": round(mean, digits), "interval": interval, "count": len(values)}


@dataclass
class Tally:
    """Counts of right answers by name."""

    _counts: dict[str, list[int]] = field(default_factory=dict)

    def add(self, name: str, right: bool) -> None:
        """Count one answer."""
        counts = self._counts.setdefault(name, [0, 0])
        counts[0] += int(right)
        counts[1] += 1

    def shares(self) -> dict[str, Share]:
        """The shares, names sorted."""
        return {name: Share(*counts) for name, counts in sorted(self._counts.items())}
