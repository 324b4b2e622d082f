"""How fast a device does its arithmetic: measured on the spot on a CPU, assumed of a GPU; each is said as such."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from pipeline_lib.records import Record
from pipeline_lib.steps.rehearsal import Work

# Dense bf16 peaks of NVIDIA's data sheets, by a part of the device's name; the first that fits.
PEAK_FLOPS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}
ASSUMED_SHARE = 0.35  # of the peak that training reaches; torchtitan reports 33 to 39 %
_SIDE = 768
_NUMBERS = 8_000_000
_SECONDS = 0.15


class Rate(Record):
    """FLOPs and bytes a second, and where they come from; 0 bytes a second: moving is not counted."""

    flops: float
    bytes: float
    origin: str

    def seconds(self, work: Work) -> float:
        """How long a piece of work takes, about."""
        return work.flops / self.flops + (work.moved / self.bytes if self.bytes else 0.0)


def peak_flops(device_name: str) -> float | None:
    """Dense bf16 FLOP/s of a device by its name; None for an unknown one."""
    return next((peak for part, peak in PEAK_FLOPS.items() if part in device_name), None)


def rate_of(device: str, dtype: torch.dtype) -> Rate | None:
    """The rate of a device.

    Args:
        device: "cpu", "cuda" or "cuda:N".
        dtype: of the arithmetic.

    Returns:
        The rate; None for a GPU whose peak is not known.
    """
    if device == "cpu":
        left, right = torch.rand(_SIDE, _SIDE).to(dtype), torch.rand(_SIDE, _SIDE).to(dtype)
        numbers = torch.rand(_NUMBERS).to(dtype)
        made = torch.empty_like(numbers)
        flops = 2 * _SIDE**3 * _per_second(lambda: torch.mm(left, right))
        moved = 2 * numbers.nbytes * _per_second(lambda: torch.mul(numbers, 2.0, out=made))
        threads = torch.get_num_threads()
        return Rate(flops=flops, bytes=moved, origin=f"measured just now, {threads} threads: {flops / 1e9:.0f} GFLOP/s")
    name = torch.cuda.get_device_name(device)
    peak = peak_flops(name)
    if peak is None:
        return None
    told = f"{ASSUMED_SHARE:.0%} of the {peak / 1e12:.0f} TFLOP/s that {name} has at most, assumed"
    return Rate(flops=ASSUMED_SHARE * peak, bytes=0.0, origin=told)


def _per_second(work: Callable[[], object]) -> float:
    work()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < _SECONDS:
        work()
        count += 1
    return count / (time.perf_counter() - started)
