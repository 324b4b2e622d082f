"""`prune`: logs of commands go with age, drops when that is asked for, and what is recent or a service's stays."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from flows.cli.look import KEPT_KINDS
from pipeline_lib.steps import caption, evaluate, generate, mask, prepare
from tests.cli.test_bad_input import command, state
from tests.drops.conftest import MemoryDispatcher, Outcome, Service
from tests.steps.tiny import small_clip

__all__ = ["state"]
OLD = time.time() - 20 * 24 * 3600


def leftovers(state: Path) -> set[str]:
    service = [*(state / "drops" / "done").iterdir(), *(state / "drops" / "rejected").iterdir()]
    return {path.name for path in (state / "logs").iterdir()} | {path.name.partition("-")[0] for path in service}


def test_old_logs_and_drops_go_and_a_rehearsal_deletes_nothing(state: Path, tmp_path: Path) -> None:
    service = Service(state / "drops", MemoryDispatcher())
    clip = small_clip(tmp_path / "clip.mp4")
    os.utime(clip, (OLD, OLD))  # the clip's own age is not the drop's
    for name, said, outcome in (("old", "", "well"), ("recent", "seed: 1", "well"), ("bad", "seed: 2", "refused")):
        service.drop(name, clip, said)
        service.intake.turn()
        (claimed,) = service.inbox.processing.iterdir()
        os.utime(claimed, (OLD, OLD))  # it had to wait: what counts is its end
        service.dispatcher.states[list(service.dispatcher.configs)[-1]] = Outcome(outcome, "too dark")
        service.intake.turn()
    logs = ("generate-0123abcd.log", "error-20260102-030405.log", "prefect-server.log", "reevaluate-0123abcd.log")
    (state / "logs").mkdir()
    for name in logs:
        (state / "logs" / name).write_text("words")
    for path in (*(state / "logs" / name for name in logs[:3]), *(state / "drops").glob("*/old-*")):
        os.utime(path, (OLD, OLD))
    os.utime(next((state / "drops" / "rejected").iterdir()), (OLD, OLD))

    everything = leftovers(state)
    told = json.loads(command("prune", "--drops", "--dry-run", "--json").output)
    assert leftovers(state) == everything
    assert {(item["place"], item["kind"]) for item in told["pruned"]} == {
        ("logs", "generate"), ("logs", "error"), ("drops", "done"), ("drops", "rejected"),
    }  # fmt: skip
    assert told["bytes"] > 2 * clip.stat().st_size
    assert command("prune").code == 0
    assert leftovers(state) == everything - {"generate-0123abcd.log", "error-20260102-030405.log"}
    assert command("prune", "--drops").code == 0
    assert leftovers(state) == {"prefect-server.log", "reevaluate-0123abcd.log", "recent"}


def test_what_a_champion_is_scored_anew_with_stays() -> None:
    assert {caption.KIND, evaluate.KIND, generate.KIND, mask.KIND, prepare.KIND} <= set(KEPT_KINDS)
