"""Wilson's interval of a share: for counts of preferences, also where all or none were for one side."""

from __future__ import annotations

import math
from statistics import NormalDist

from pipeline_lib.metrics.aggregate import COVERAGE


def wilson_interval(successes: int, trials: int, coverage: float = COVERAGE) -> tuple[float, float]:
    """The score interval of a binomial share (Wilson 1927).

    Args:
        successes: how often it was so.
        trials: how often it was asked, at least once.
        coverage: how often the interval holds the true share.

    Returns:
        Low and high end, in [0, 1].
    """
    z = NormalDist().inv_cdf((1 + coverage) / 2)
    share, spread = successes / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    reach = z / (1 + spread) * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return max(0.0, middle - reach), min(1.0, middle + reach)
