"""When a drop is whole."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pipeline_lib.drops.concept_file import ConceptFile, schema
from pipeline_lib.drops.drop import digest_of
from pipeline_lib.drops.folder_inbox import FolderInbox
from pipeline_lib.drops.ledger import Ledger
from tests.drops.conftest import Service

Clips = tuple[Path, Path]


def test_half_a_file_is_no_drop_until_it_is_whole(service: Service, clips: Clips) -> None:
    content = clips[0].read_bytes()
    target = service.inbox.inbox / "wolf.mp4"
    target.write_bytes(content[: len(content) // 2])
    service.intake.turn()
    service.intake.turn()
    assert not service.dispatcher.configs
    assert target.exists()
    target.write_bytes(content)
    service.intake.turn()
    assert len(service.dispatcher.configs) == 1


def test_what_still_changes_is_left_alone(tmp_path: Path, clips: Clips) -> None:
    inbox = FolderInbox(tmp_path, settle_seconds=0.15)
    target = inbox.inbox / "wolf.mp4"
    target.write_bytes(clips[0].read_bytes())
    assert not inbox.scan()
    time.sleep(0.1)
    os.utime(target)  # written to again
    assert not inbox.scan()
    time.sleep(0.1)
    assert not inbox.scan()
    time.sleep(0.1)
    assert [drop.name for drop in inbox.scan()] == ["wolf.mp4"]


def test_the_mark_needs_no_wait(tmp_path: Path, clips: Clips) -> None:
    inbox = FolderInbox(tmp_path, settle_seconds=3600)
    folder = inbox.inbox / "wolf"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(clips[0].read_bytes())
    assert not inbox.scan()
    (folder / "_READY").touch()
    assert [drop.name for drop in inbox.scan()] == ["wolf"]


def test_broken_media_are_told_when_patience_ends(tmp_path: Path) -> None:
    inbox = FolderInbox(tmp_path, settle_seconds=0.0, patience_seconds=0.1)
    (inbox.inbox / "text.mp4").write_text("no video")
    assert not inbox.scan()
    time.sleep(0.15)
    (drop,) = inbox.scan()
    assert "text.mp4" in drop.problem


@pytest.mark.parametrize("name", [".hidden.mp4", "wolf.mp4.part", "wolf.mp4.crdownload"])
def test_hidden_and_partial_names_are_ignored(service: Service, clips: Clips, name: str) -> None:
    (service.inbox.inbox / name).write_bytes(clips[0].read_bytes())
    service.intake.turn()
    assert not service.dispatcher.configs
    assert (service.inbox.inbox / name).exists()


def test_a_folder_into_which_a_copy_runs_waits(service: Service, clips: Clips) -> None:
    folder = service.drop("wolf", clips[0])
    partial = folder / "more.mp4.part"
    partial.write_bytes(b"x")
    service.intake.turn()
    assert not service.dispatcher.configs
    partial.unlink()
    service.intake.turn()
    assert len(service.dispatcher.configs) == 1


def test_the_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    def folder(name: str, files: dict[str, str]) -> Path:
        made = tmp_path / name
        made.mkdir()
        for file, text in files.items():
            (made / file).write_text(text)
        return made

    same = digest_of(folder("a", {"x.mp4": "1", "y.mp4": "2"}))
    assert digest_of(folder("b", {"x.mp4": "1", "y.mp4": "2", "_READY": ""})) == same
    assert digest_of(folder("c", {"x.mp4": "2", "y.mp4": "1"})) != same
    assert digest_of(folder("d", {"x.mp4": "1", "z.mp4": "2"})) != same


def test_one_of_two_claims_wins(tmp_path: Path) -> None:
    first, second = Ledger(tmp_path / "l.db"), Ledger(tmp_path / "l.db")
    assert [first.claim("d", "a"), second.claim("d", "b")] == [True, False]
    (entry,) = second.entries()
    assert entry.name == "a"


def test_the_schema_names_every_key_with_its_meaning() -> None:
    import json

    told = json.loads(schema())
    assert set(told["properties"]) == set(ConceptFile.model_fields)
    assert all(inner["description"] for inner in told["properties"].values())
    assert told["additionalProperties"] is False
