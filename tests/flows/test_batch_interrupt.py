"""Ctrl-C while two runs train beside each other in one process: both stop at a checkpoint, no worker is left, and the
page tells."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from pipeline_lib.steps.batch import BatchRecord
from pipeline_lib.steps.run_folder import RunFolder, run_identity
from pipeline_lib.steps.state import StateFolder
from tests.steps.tiny import small_clip, tiny_config

pytestmark = pytest.mark.system

PATIENCE = 400.0


def stages(state: StateFolder) -> set[Path]:
    """Stages that have been trained in part."""
    return {path.parent for path in state.root.glob("store/work/stage/*/*")}


def workers() -> set[int]:
    """Process ids of the worker children of this process."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        try:
            if "pipeline_lib.worker" in child.cmdline():
                found.add(child.pid)
        except psutil.Error:
            continue
    return found


@pytest.mark.timeout(1200)
def test_an_interrupt_stops_all_that_run(state: StateFolder, tmp_path: Path, tiny_folder: Path) -> None:
    from prefect import flow

    from flows.batch import run_configs
    from flows.concepts import Chosen

    clip = small_clip(tmp_path / "hare.mp4")
    settings = ("method.settings.identity_steps=1000000", "method.settings.prior_clips=1", "tracking.mlflow=false")
    configs = [tiny_config(tiny_folder, [clip], *settings, f"seed={seed}") for seed in (11, 12)]
    chosen = [Chosen(f"hare-{number}", config) for number, config in enumerate(configs)]
    before, former_stages = workers(), stages(state)  # other tests of this folder stop runs, too

    def interrupt_once_both_train() -> None:
        end = time.monotonic() + PATIENCE
        while len(stages(state) - former_stages) < 2 and time.monotonic() < end:
            time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    @flow
    def parent() -> None:
        threading.Thread(target=interrupt_once_both_train, daemon=True).start()
        run_configs([*chosen, chosen[0]], name="hares", at_once=2)

    # Who starts us in the background of a script has us ignore Ctrl-C.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            parent()
    finally:
        signal.signal(signal.SIGINT, former)
    records = [RunFolder(state, run_identity(config)).record() for config in configs]
    assert [record.status if record else "" for record in records] == ["stopped", "stopped"]
    assert len(stages(state) - former_stages) == 2, "each has a checkpoint to go on from"
    assert workers() <= before
    (written,) = state.batches.glob("hares-*/batch.json")
    rows = BatchRecord.model_validate_json(written.read_bytes()).rows
    assert [(row.concept, row.status) for row in rows] == [("hare-0", "stopped"), ("hare-1", "stopped")]
    assert "hare-1" in written.with_name("batch.html").read_text()
