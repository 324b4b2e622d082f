"""What stays true of a drop over time: retries after its end, late writers, a lost ledger."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline_lib.drops.drop import Drop, digest_of
from pipeline_lib.drops.folder_inbox import FolderInbox
from pipeline_lib.drops.intake import Outcome
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
