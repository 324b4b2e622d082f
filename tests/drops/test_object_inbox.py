"""The inbox in an object store, on fsspec's own store in memory; over HTTP it is tested in tests/system."""

from __future__ import annotations

import io
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import fsspec
import pytest
from PIL import Image

from pipeline_lib.drops.inbox import InboxAwayError
from pipeline_lib.drops.intake import Intake, Outcome
from pipeline_lib.drops.ledger import Ledger
from pipeline_lib.drops.object_inbox import ObjectInbox
from pipeline_lib.drops.object_store import ObjectStore
from pipeline_lib.errors import ConfigError
from pipeline_lib.run_config import RunConfig
from tests.drops.conftest import MemoryDispatcher

Files = dict[str, bytes]


def picture(shade: int) -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (48, 48), (shade, 90, 30)).save(made, "PNG")
    return made.getvalue()


WOLF: Files = {"a.png": picture(10), "b.png": picture(20)}
BEAR: Files = {"a.png": picture(30)}


@dataclass
class StoreService:
    """An inbox in a store with its intake; `again` is the same after a death."""

    home: Path
    url: str = field(default_factory=lambda: f"memory://{uuid.uuid4().hex}/drops")
    dispatcher: MemoryDispatcher = field(default_factory=MemoryDispatcher)
    told: list[str] = field(default_factory=list)
    settle: float = 0.0

    def __post_init__(self) -> None:
        self.files = fsspec.filesystem("memory")
        self.root = self.url.removeprefix("memory:/")
        self.again()

    def again(self) -> None:
        self.store = ObjectStore.open(self.url)
        self.inbox = ObjectInbox(self.store, self.home, settle_seconds=self.settle, patience_seconds=3600)
        self.ledger = Ledger(self.home / "ledger.db")
        self.intake = Intake(self.inbox, self.ledger, self.dispatcher, RunConfig(), self.told.append)

    def put(self, key: str, content: bytes) -> None:
        self.files.pipe_file(f"{self.root}/{key}", content)

    def drop(self, name: str, files: Files) -> None:
        for file, content in files.items():
            self.put(f"inbox/{name}/{file}", content)

    def here(self, prefix: str) -> Files:
        found = self.files.find(f"{self.root}/{prefix}")
        return {path.removeprefix(f"{self.root}/{prefix}/"): self.files.cat_file(path) for path in found}

    def end(self, outcome: Outcome = Outcome("well")) -> None:  # noqa: B008 - frozen
        for run in self.dispatcher.configs:
            self.dispatcher.states.setdefault(run, outcome)
        self.intake.turn()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[StoreService]:
    made = StoreService(tmp_path / "home")
    yield made
    made.files.store.clear()


def media(prefix: str, files: Files) -> Files:
    return {f"{prefix}/media/{name}": content for name, content in files.items()}


def test_a_drop_becomes_a_run_and_moves_on_when_it_ends(service: StoreService) -> None:
    service.drop("grey-wolf", WOLF)
    service.intake.turn()
    (config,) = service.dispatcher.configs.values()
    assert config.concept.subject == "grey wolf"
    (folder,) = map(Path, config.concept.inputs)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == WOLF
    assert service.here("inbox") == {f"grey-wolf/{name}": content for name, content in WOLF.items()}
    service.intake.turn()  # what is in the inbox is known as ours
    service.end()
    (entry,) = service.ledger.entries()
    assert entry.state == "done"
    assert service.here("inbox") == {}
    assert service.here("done") == media(f"grey-wolf-{entry.digest[:12]}", WOLF)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == WOLF  # tried again, it finds its files
    assert not list(service.inbox.processing.iterdir())
    assert not list((service.home / "arriving").iterdir())


def test_a_single_object_is_a_drop_and_digests_as_in_a_folder(service: StoreService) -> None:
    service.put("inbox/plush_bear.png", BEAR["a.png"])
    service.intake.turn()
    service.drop("other", {"plush_bear.png": BEAR["a.png"]})
    service.intake.turn()
    (config,) = service.dispatcher.configs.values()
    assert config.concept.subject == "plush bear"
    (again,) = [key for key in service.here("done") if key.endswith("reason.json")]
    assert "came before as plush_bear.png" in json.loads(service.here("done")[again])["reason"]
    assert set(service.here("inbox")) == {"plush_bear.png"}


def test_what_still_arrives_waits(service: StoreService) -> None:
    service.settle = 3600
    service.again()
    service.drop("wolf", {"a.png": WOLF["a.png"]})
    service.intake.turn()
    service.drop("wolf", {"b.png": WOLF["b.png"], "c.png.part": b"x"})
    service.drop("wolf", {"_READY": b""})
    service.intake.turn()
    assert not service.dispatcher.configs
    service.files.rm_file(f"{service.root}/inbox/wolf/c.png.part")
    service.intake.turn()
    assert len(service.dispatcher.configs) == 1


def test_media_that_do_not_decode_may_be_half(service: StoreService) -> None:
    service.put("inbox/text.mp4", b"no video")
    service.intake.turn()
    service.intake.turn()
    assert set(service.here("inbox")) == {"text.mp4"}
    assert not service.dispatcher.configs


def test_a_mistake_is_told_beside_the_files(service: StoreService) -> None:
    service.drop("bad", {**WOLF, "concept.yaml": b"sed: 1"})
    service.drop("good", BEAR)
    service.intake.turn()
    rejected = service.here("rejected")
    (reason,) = [json.loads(content) for key, content in rejected.items() if key.endswith("/reason.json")]
    assert "unknown key `sed`" in reason["reason"]
    assert sum(content in WOLF.values() for content in rejected.values()) == 2
    assert [config.concept_name for config in service.dispatcher.configs.values()] == ["good"]
    assert set(service.here("inbox")) == {"good/a.png"}


@pytest.mark.parametrize("name", ["../x.png", "a//b.png", "./x.png", "n" * 300, "a\\..\\x.png"])
def test_keys_that_are_no_paths_are_refused(service: StoreService, name: str) -> None:
    service.files.store[f"{service.root}/inbox/odd/{name}"] = fsspec.implementations.memory.MemoryFile(
        service.files, f"{service.root}/inbox/odd/{name}", BEAR["a.png"]
    )
    service.drop("good", WOLF)
    service.intake.turn()
    assert any("no file's name" in line for line in service.told)
    assert set(service.here("inbox")) == {"good/a.png", "good/b.png"}
    (kept,) = [key for key, content in service.here("rejected").items() if content == BEAR["a.png"]]
    assert kept.count("/") == 2  # below the folder of the rejection, whatever it was called
    assert len(list(service.home.parent.rglob("*.png"))) == len(WOLF)


@pytest.mark.parametrize("names", [("odd/a", "odd/a/b.png"), ("odd", "odd/odd")])
def test_keys_of_which_one_is_the_others_folder_are_refused_and_kept(
    service: StoreService, names: tuple[str, str]
) -> None:
    contents = (BEAR["a.png"], WOLF["a.png"])
    for name, content in zip(names, contents, strict=True):
        path = f"{service.root}/inbox/{name}"
        service.files.store[path] = fsspec.implementations.memory.MemoryFile(service.files, path, content)
    service.drop("good", {"b.png": WOLF["b.png"]})
    service.intake.turn()
    assert any("no file's name" in line for line in service.told)
    assert len(service.dispatcher.configs) == 1
    assert {content for key, content in service.here("rejected").items() if "reason" not in key} == set(contents)


def test_one_that_cannot_be_fetched_keeps_nobody_waiting(
    service: StoreService, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = ObjectStore.fetch

    def picky(store: ObjectStore, name: str, *rest: object) -> None:
        if "stuck" in name:
            raise InboxAwayError("403 for this one")
        fetch(store, name, *rest)

    service.drop("stuck", BEAR)
    service.drop("wolf", WOLF)
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "fetch", picky)
        service.intake.turn()
        service.intake.turn()
        assert [config.concept_name for config in service.dispatcher.configs.values()] == ["wolf"]
        assert sum("403 for this one" in line for line in service.told) == 1
    service.intake.turn()
    assert len(service.dispatcher.configs) == 2


def test_one_that_the_store_does_not_move_keeps_nobody_waiting(
    service: StoreService, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = ObjectStore.copy

    def picky(store: ObjectStore, source: str, target: str) -> bool:
        if "stuck" in source:
            raise InboxAwayError("not this one")
        return copy(store, source, target)

    service.drop("stuck", {**BEAR, "concept.yaml": b"sed: 1"})
    service.drop("stuck-too", {"x.txt": b"no media", "_READY": b""})
    service.drop("wolf", WOLF)
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "copy", picky)
        for _ in range(3):
            service.end()
        assert [entry.state for entry in service.ledger.entries() if entry.name == "wolf"] == ["done"]
        assert sum("not this one" in line for line in service.told) == 1
    service.end()
    assert service.here("inbox") == {}
    assert len([key for key in service.here("rejected") if key.endswith("reason.json")]) == 2


def test_too_large_is_told_before_it_is_downloaded(service: StoreService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline_lib.drops.object_inbox.MOST_BYTES", 100)
    service.drop("big", WOLF)
    service.intake.turn()
    assert any("too large" in line for line in service.told)
    assert service.here("inbox") == {}
    assert sum(content in WOLF.values() for content in service.here("rejected").values()) == 2


def test_a_disk_without_room_keeps_the_drop_waiting(service: StoreService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline_lib.drops.object_inbox._RESERVE", 2**60)
    service.drop("wolf", WOLF)
    service.intake.turn()
    service.intake.turn()
    assert sum("drops wait: wolf needs" in line for line in service.told) == 1
    monkeypatch.undo()
    service.intake.turn()
    assert len(service.dispatcher.configs) == 1


def test_what_is_put_there_meanwhile_is_never_deleted(service: StoreService) -> None:
    service.drop("wolf", WOLF)
    service.intake.turn()
    service.drop("wolf", {"a.png": BEAR["a.png"]})
    service.end()
    (done,) = [entry for entry in service.ledger.entries() if entry.state == "done"]
    assert service.here("done") == media(f"wolf-{done.digest[:12]}", WOLF)  # what was learned from, from here
    assert service.here("inbox") == {"wolf/a.png": BEAR["a.png"]}
    assert len(service.dispatcher.configs) == 2


def test_drops_keep_their_order(service: StoreService) -> None:
    names = [f"drop{number}" for number in (3, 1, 2)]
    for shade, name in enumerate(names):
        service.drop(name, {"a.png": picture(shade)})
    service.intake.turn()
    assert [config.concept_name for config in service.dispatcher.configs.values()] == names


def test_a_store_that_is_away_delays_and_loses_nothing(service: StoreService, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise TimeoutError("nobody there")

    service.drop("wolf", WOLF)
    for act in ("find", "cp_file"):
        with monkeypatch.context() as patch:
            patch.setattr(type(service.files), act, away)
            service.end()
            service.end()
        assert sum(f"drops wait: {service.url}" in line for line in service.told) == 1
        service.told.clear()
        service.end()
    assert [entry.state for entry in service.ledger.entries()] == ["done"]
    assert service.here("inbox") == {}


def test_a_lost_ledger_and_a_lost_folder_bring_no_second_run(service: StoreService) -> None:
    service.drop("wolf", WOLF)
    service.intake.turn()
    for path in service.home.glob("ledger.db*"):
        path.unlink()
    service.again()
    service.intake.turn()
    assert any("in no ledger" in line for line in service.told)
    shutil.rmtree(service.home)
    service.again()
    service.intake.turn()
    service.end()
    assert len(service.dispatcher.configs) == 1
    assert service.here("inbox") == {}
    assert len(service.here("done")) == len(WOLF)


def test_stores_that_cannot_be_opened_are_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no store"):
        ObjectStore.open("nowhere://bucket")

    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[s3\]'"):
        ObjectStore.open("s3://bucket/drops")


def pictures(files: Files) -> list[bytes]:
    return [content for key, content in files.items() if key.endswith(".png")]


class DiedError(BaseException):
    """The process ends here."""


ACTS: list[tuple[Any, str]] = [
    *((ObjectStore, act) for act in ("fetch", "copy", "write", "delete")),
    *((Ledger, act) for act in ("claim", "submitted", "done", "rejected")),
    (MemoryDispatcher, "submit"),
    (ObjectInbox, "take"),
    (Path, "rename"),
    (Path, "unlink"),
]


def mortal(patch: pytest.MonkeyPatch, lives: int) -> None:
    """The process ends after so many acts; nothing that is to be tidied up then happens any more."""
    left = count(lives, -1)

    def counted(act: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            if (now := next(left)) <= 0:
                raise DiedError
            made = act(*arguments, **options)
            if now == 1:
                raise DiedError
            return made

        return run

    for owner, act in ACTS:
        patch.setattr(owner, act, counted(getattr(owner, act)))


@pytest.mark.timeout(900)  # dozens of lives
def test_a_death_after_any_act_leaves_each_drop_with_its_one_end(tmp_path: Path) -> None:
    for lives in count(1):
        service = StoreService(tmp_path / str(lives))
        service.drop("wolf", WOLF)
        service.drop("again", WOLF)
        service.drop("bad", {**BEAR, "concept.yaml": b"sed: 1"})
        died = False
        with pytest.MonkeyPatch.context() as patch:
            mortal(patch, lives)
            try:
                service.end()
                service.end()
            except DiedError:
                died = True
        for _ in range(3):
            service.again()
            service.end()
        assert [config.concept_name for config in service.dispatcher.configs.values()] == ["wolf"], lives
        ends = sorted((entry.name, entry.state) for entry in service.ledger.entries())
        assert ends == [("bad", "rejected"), ("wolf", "done")], lives
        assert service.here("inbox") == {}, lives
        done, rejected = service.here("done"), service.here("rejected")
        assert sorted(pictures(done)) == sorted([*WOLF.values(), *WOLF.values()]), lives
        assert pictures(rejected) == [*BEAR.values()], lives
        assert sum(key.endswith("reason.json") for key in (*done, *rejected)) == 2, lives
        assert not list(service.inbox.processing.iterdir()), lives
        service.files.store.clear()
        if not died:
            assert lives > 30
            return
