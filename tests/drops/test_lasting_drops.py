"""What stays true of a drop over time: retries after its end, late writers, a lost ledger."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipeline_lib.drops.drop import Drop, digest_of
from pipeline_lib.drops.folder_inbox import FolderInbox
from pipeline_lib.drops.intake import MOST_RETRIES, Outcome
from pipeline_lib.steps.run_folder import run_identity
from tests.drops.conftest import Service

Clips = tuple[Path, Path]


def only_input(service: Service) -> Path:
    (config,) = service.dispatcher.configs.values()
    return Path(config.concept.inputs[0])


@pytest.mark.parametrize("outcome", [Outcome("well"), Outcome("refused", "its run was cancelled")])
def test_a_run_that_is_tried_again_after_its_end_finds_its_files(
    service: Service, clips: Clips, outcome: Outcome
) -> None:
    service.drop("wolf", clips[0])
    service.intake.turn()
    (run,) = service.dispatcher.configs
    before = run_identity(service.dispatcher.configs[run])
    service.dispatcher.states[run] = outcome
    service.intake.turn()
    assert not list(service.inbox.processing.iterdir())
    assert run_identity(service.dispatcher.configs[run]) == before
    service.again()  # a new watcher leaves it as it is
    assert (only_input(service) / "red.mp4").is_file()
    shutil.rmtree(next(folder for folder in (service.inbox.done, service.inbox.rejected) if list(folder.iterdir())))
    service.again()
    assert not list(service.inbox.inputs.iterdir())  # somebody made room


def submitted(service: Service, clip: Path) -> str:
    """Drops a clip; its run."""
    service.drop("wolf", clip)
    service.intake.turn()
    return list(service.dispatcher.configs)[-1]


def test_a_crashed_run_is_tried_again_so_many_times_and_then_waits_for_a_person(service: Service, clips: Clips) -> None:
    run = submitted(service, clips[0])
    for _ in range(MOST_RETRIES):
        service.dispatcher.states[run] = Outcome("crashed")
        service.again()  # the count is no watcher's own
        service.intake.turn()
        assert service.dispatcher.states[run] == Outcome()  # it runs
        service.intake.turn()
    assert sum("its run crashed and is tried again" in line for line in service.told) == MOST_RETRIES
    for times in (1, 2):  # a person tries it, and it crashes again
        service.dispatcher.states[run] = Outcome("crashed")
        service.intake.turn()
        service.intake.turn()
        assert service.dispatcher.states[run] == Outcome("crashed")
        assert sum("wolf waits for a person" in line for line in service.told) == times
        service.dispatcher.states[run] = Outcome()
        service.intake.turn()
    service.dispatcher.states[run] = Outcome("well")
    service.intake.turn()
    assert [entry.state for entry in service.ledger.entries()] == ["done"]


def test_a_crashed_run_that_a_person_tries_again_first_is_left_to_them(
    service: Service, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = submitted(service, clips[0])
    service.dispatcher.states[run] = Outcome()
    with monkeypatch.context() as patch:  # the answer is older than their click
        patch.setattr(service.dispatcher, "outcomes", lambda runs: {run: Outcome("crashed")})
        service.intake.turn()
    assert not [line for line in service.told if "tried again" in line]


def test_a_retry_that_the_server_does_not_take_is_not_counted(
    service: Service, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = submitted(service, clips[0])
    service.dispatcher.states[run] = Outcome("crashed")
    with monkeypatch.context() as patch:  # it reads, and is too busy to write
        patch.setattr(service.dispatcher, "outcomes", lambda runs: {run: Outcome("crashed")})
        service.dispatcher.reachable = False
        for _ in range(MOST_RETRIES + 1):
            service.intake.turn()
    service.dispatcher.reachable = True
    (entry,) = service.ledger.entries()
    assert entry.retries == 0
    service.intake.turn()
    (entry,) = service.ledger.entries()
    assert entry.retries == 1


def test_a_run_that_was_stopped_with_its_server_goes_on_however_often(service: Service, clips: Clips) -> None:
    run = submitted(service, clips[0])
    for _ in range(MOST_RETRIES + 2):
        service.dispatcher.states[run] = Outcome("stopped")
        service.intake.turn()
        assert service.dispatcher.states[run] == Outcome()
    assert sum("was stopped and is tried again" in line for line in service.told) == MOST_RETRIES + 2
    (entry,) = service.ledger.entries()
    assert entry.retries == 0


def test_a_run_that_failed_is_told_once_and_left_to_a_person(service: Service, clips: Clips) -> None:
    run = submitted(service, clips[0])
    for times in (1, 2):
        service.dispatcher.states[run] = Outcome("failed", "no space left")
        service.intake.turn()
        service.intake.turn()
        assert service.dispatcher.states[run] == Outcome("failed", "no space left")
        told = [line for line in service.told if line.startswith("wolf waits for a person: its run failed: no space")]
        assert len(told) == times
        service.dispatcher.states[run] = Outcome()  # Retry
        service.intake.turn()
    (entry,) = service.ledger.entries()
    assert entry.state == "submitted"


def test_another_run_of_a_drop_may_be_tried_again_as_often(service: Service, clips: Clips) -> None:
    run = submitted(service, clips[0])
    service.dispatcher.states[run] = Outcome("crashed")
    service.intake.turn()
    (entry,) = service.ledger.entries()
    assert entry.retries == 1
    service.dispatcher.states[run] = Outcome("refused", "its run was cancelled")
    service.intake.turn()
    submitted(service, clips[0])
    (entry,) = service.ledger.entries()
    assert (entry.attempt, entry.retries) == (2, 0)


def test_a_ledger_of_before_retries_were_counted_goes_on(service: Service, clips: Clips) -> None:
    run = submitted(service, clips[0])
    with closing(sqlite3.connect(service.root / "ledger.db")) as database:
        database.execute("ALTER TABLE drops DROP COLUMN retries")
    service.again()
    service.dispatcher.states[run] = Outcome("crashed")
    service.intake.turn()
    (entry,) = service.ledger.entries()
    assert (entry.run, entry.retries) == (run, 1)


def test_a_cancelled_run_that_ends_well_after_all_takes_its_drop_out_of_the_rejected(
    service: Service, clips: Clips
) -> None:
    service.drop("bad", clips[1], "sed: 1")  # has no run, and stays
    run = submitted(service, clips[0])
    service.dispatcher.states[run] = Outcome("refused", "its run was cancelled")
    service.intake.turn()
    assert len(list(service.inbox.rejected.iterdir())) == 2
    service.dispatcher.states[run] = Outcome()  # a person pressed Retry
    service.again()
    service.intake.turn()
    assert len(list(service.inbox.rejected.iterdir())) == 2
    service.dispatcher.states[run] = Outcome("well")
    service.again()
    service.intake.turn()
    (left,) = service.inbox.rejected.iterdir()
    assert "sed" in json.loads((left / "reason.json").read_text())["reason"]
    (done,) = service.inbox.done.iterdir()
    assert (done / "media" / "red.mp4").read_bytes() == clips[0].read_bytes()
    assert not (done / "reason.json").exists()
    assert (only_input(service) / "red.mp4").is_file()
    assert {entry.name: entry.state for entry in service.ledger.entries()} == {"bad": "rejected", "wolf": "done"}


def test_the_rejected_are_looked_at_now_and_then(
    service: Service, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = submitted(service, clips[0])
    service.dispatcher.states[run] = Outcome("refused", "its run was cancelled")
    service.intake.turn()
    asked: list[str] = []
    answer = service.dispatcher.outcomes
    monkeypatch.setattr(service.dispatcher, "outcomes", lambda runs: asked.extend(runs) or answer(runs))
    service.again()
    service.intake.turn()
    service.intake.turn()
    assert asked == [run]
    monkeypatch.setattr("pipeline_lib.drops.intake.LATE_SECONDS", 0.0)
    service.again()
    service.intake.turn()
    service.intake.turn()
    assert asked == [run] * 3


def test_what_is_written_to_between_digest_and_move_goes_back_and_settles(
    service: Service, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = FolderInbox.take

    def late_writer(inbox: FolderInbox, drop: Drop, key: str) -> None:
        clip = drop.path / "red.mp4" if drop.path.is_dir() else drop.path
        clip.write_bytes(clips[1].read_bytes())
        take(inbox, drop, key)

    service.drop("wolf", clips[0])
    (service.inbox.inbox / "plush_bear.mp4").write_bytes(clips[0].read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(FolderInbox, "take", late_writer)
        service.intake.turn()
    assert not service.dispatcher.configs
    assert not service.ledger.entries()
    assert not list(service.inbox.processing.iterdir())
    assert sorted(path.name for path in service.inbox.inbox.iterdir()) == ["plush_bear.mp4", "wolf"]
    assert (service.inbox.inbox / "plush_bear.mp4").read_bytes() == clips[1].read_bytes()
    service.intake.turn()
    assert {config.concept_name for config in service.dispatcher.configs.values()} == {"wolf", "plush-bear"}


def test_reasons_hold_no_path_of_the_service(service: Service, clips: Clips) -> None:
    (service.inbox.inbox / "empty").mkdir()
    (service.inbox.inbox / "empty" / "_READY").touch()
    folder = service.drop("nested", clips[0])
    (folder / "deeper").mkdir()
    (folder / "red.mp4").rename(folder / "deeper" / "red.mp4")
    (folder / "_READY").touch()
    service.drop("wolf", clips[0])
    service.intake.turn()
    ((run, config),) = service.dispatcher.configs.items()
    service.dispatcher.states[run] = Outcome("refused", f"{config.concept.inputs[0]}/red.mp4 is too dark")
    service.intake.turn()
    notes = [path.read_text() for path in service.inbox.rejected.glob("*/reason.json")]
    assert len(notes) == 3
    assert any('"red.mp4 is too dark"' in note for note in notes)
    assert not [text for text in (*notes, *service.told) if str(service.root) in text]
    assert not [entry.reason for entry in service.ledger.entries() if str(service.root) in entry.reason]


def test_a_lost_ledger_brings_no_second_run(service: Service, clips: Clips) -> None:
    service.drop("wolf", clips[0])
    service.intake.turn()
    for path in service.root.glob("ledger.db*"):
        path.unlink()
    service.again()
    (entry,) = service.ledger.entries()
    assert (entry.name, entry.state) == ("wolf", "claimed")
    service.intake.turn()
    (run,) = service.dispatcher.configs
    service.dispatcher.states[run] = Outcome("well")
    service.intake.turn()
    assert [entry.state for entry in service.ledger.entries()] == ["done"]
    assert not list(service.inbox.processing.iterdir())


def test_a_second_attempt_that_was_never_moved_stays_the_second(service: Service, clips: Clips) -> None:
    digest = digest_of(clips[0])
    assert service.ledger.claim(digest, "wolf")
    service.ledger.rejected(digest, "its run was cancelled")
    assert service.ledger.claim(digest, "wolf")
    service.intake.turn()  # whoever claimed it died, and the drop is still on its way
    (service.inbox.inbox / "red.mp4").write_bytes(clips[0].read_bytes())
    service.intake.turn()
    assert list(service.dispatcher.configs) == [f"run-{digest}-2"]
