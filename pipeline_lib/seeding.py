"""Counter-based randomness: every draw is a pure function of (seed, purpose, counters).

No generator state is ever saved. A resumed run, a run with other micro-batches or on several
processes asks for the same (step, sample) and gets the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def seeded_globally(device: torch.device, seed: int, purpose: str, *counters: int) -> Iterator[None]:
    """For code of others that draws from torch's global generators: seeded inside, afterwards as they were.

    Args:
        device: whose generator, beside the CPU's.
        seed: as of :func:`derived_seed`.
        purpose: likewise.
        *counters: likewise.
    """
    on_gpu = device.type == "cuda"
    derived = derived_seed(seed, purpose, *counters)
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(derived)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(derived)
        yield
