"""Counter-based randomness: every draw is a pure function of (seed, purpose, counters).

No generator state is ever saved. A resumed run, a run with other micro-batches or on several
processes asks for the same (step, sample) and gets the same bits.
"""

from __future__ import annotations

import hashlib

import torch


def derived_seed(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit seed from a run's seed, a purpose and counters (step, sample, …).

    Args:
        seed: the run's seed.
        purpose: what the draw is for, e.g. "noise"; distinct purposes are independent.
        *counters: what tells draws for one purpose apart, e.g. step and sample.

    Returns:
        A non-negative integer below 2**63.
    """
    text = ":".join([str(seed), purpose, *map(str, counters)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """A CPU generator seeded by :func:`derived_seed`."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, *counters))
