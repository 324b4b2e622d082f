"""Whether somebody watches, and where an inbox keeps its things."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pipeline_lib.drops.heartbeat import HEARTBEAT_FILE, Heartbeat, last_beat
from pipeline_lib.drops.places import drops_home, inbox_of
from pipeline_lib.steps.state import StateFolder


def test_a_watcher_can_be_told_from_one_that_was_killed(tmp_path: Path) -> None:
    assert last_beat(tmp_path) is None
    before = time.time()
    heart = Heartbeat(tmp_path)
    with heart.alive():
        first = last_beat(tmp_path)
        assert first is not None
        assert first.pid == os.getpid()
        assert before <= first.time <= time.time()
        heart.beat()
        assert last_beat(tmp_path) == first  # not at every turn
    assert last_beat(tmp_path) is None
    (tmp_path / HEARTBEAT_FILE).write_text("{")
    assert last_beat(tmp_path) is None


def test_each_inbox_has_a_folder_of_its_own_on_this_machine(tmp_path: Path) -> None:
    state = StateFolder.open(tmp_path / "state")
    assert drops_home("", state) == state.drops
    assert drops_home(str(tmp_path / "mine"), state) == tmp_path / "mine"
    assert drops_home(f"file://{tmp_path}/mine", state) == tmp_path / "mine"
    stores = [drops_home(url, state) for url in ("s3://bucket/team a", "s3://bucket/team/a", "s3://bucket/team/a/")]
    assert stores[1] == stores[2] != stores[0]
    assert all(state.root in store.parents for store in stores)
    assert inbox_of("s3://bucket/team/", state) == "s3://bucket/team/inbox"
    assert inbox_of("", state) == f"{state.drops}/inbox"
