"""One device, one holder, freed by death."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline_lib.errors import StopRequested
from pipeline_lib.processes.locks import device_lock, device_name

HOLDER = (
    "import sys, time; from pathlib import Path; from pipeline_lib.processes.locks import device_lock\n"
    "with device_lock('cpu', Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


def test_killed_holder_frees_the_device_and_waiting_is_told(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    told: list[str] = []

    def tell(status: str) -> None:
        told.append(status)
        holder.kill()

    start = time.monotonic()
    with device_lock("cpu", tmp_path, on_wait=tell):
        assert time.monotonic() - start < 3
    assert told == [f"waiting for cpu, held by process {holder.pid}"]
    holder.wait()
    holder.stdout.close()


def test_waiting_can_be_stopped_and_other_devices_are_free(tmp_path: Path) -> None:
    with device_lock("cuda:0", tmp_path):
        with pytest.raises(StopRequested), device_lock("cuda", tmp_path, stop=lambda: True):
            pass
        with device_lock("cuda:1", tmp_path), device_lock("cpu", tmp_path):
            pass
    with device_lock("cuda:0", tmp_path):
        pass


def test_error_inside_frees_the_device(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), device_lock("cpu", tmp_path):
        _ = 1 / 0
    with device_lock("cpu", tmp_path, stop=lambda: True):
        pass


@pytest.mark.parametrize(
    ("device", "visible", "name"),
    [
        ("cpu", "", "cpu"),
        ("cuda", "", "cuda-0"),
        ("cuda:1", "", "cuda-1"),
        ("cuda:1", "2,5", "cuda-5"),
        ("cuda", "GPU-8932f937/x", "cuda-GPU-8932f937-x"),
        ("mps", "3", "mps"),
    ],
)
def test_lock_is_named_after_the_physical_device(device: str, visible: str, name: str) -> None:
    assert device_name(device, visible) == name
