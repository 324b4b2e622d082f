from __future__ import annotations

from pathlib import Path

from pipeline_lib.processes.out_of_memory import kernel_kills


def test_kills_are_summed_over_the_counters_that_are_there(tmp_path: Path) -> None:
    group, machine = tmp_path / "memory.events", tmp_path / "vmstat"
    group.write_text("low 7\noom 9\noom_kill 2\noom_group_kill 5\n")
    machine.write_text("nr_free_pages 12\noom_kill 3\n")
    assert kernel_kills([group, machine, tmp_path / "absent"]) == 5
    assert kernel_kills() >= 0
