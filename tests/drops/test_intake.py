"""One drop, one run: whatever comes twice, half, broken, or while something is dead."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline_lib.drops.drop import digest_of
from pipeline_lib.drops.intake import Outcome
from pipeline_lib.errors import ConfigError
from pipeline_lib.run_config import RunConfig
from tests.drops.conftest import Service

Clips = tuple[Path, Path]


def test_a_drop_becomes_a_run_and_moves_on_when_it_ends(service: Service, clips: Clips) -> None:
    service.drop("grey-wolf", clips[0])
    service.intake.turn()
    ((run, config),) = service.dispatcher.configs.items()
    assert config.concept.subject == "grey wolf"
    assert config.concept_name == "grey-wolf"
    (folder,) = map(Path, config.concept.inputs)
    assert (folder / "red.mp4").read_bytes() == clips[0].read_bytes()
    assert not list(service.inbox.inbox.iterdir())

    service.intake.turn()
    assert folder.is_dir()  # the run still reads it
    service.dispatcher.states[run] = Outcome("well")
    service.intake.turn()
    (done,) = service.inbox.done.iterdir()
    assert (done / "media" / "red.mp4").is_file()
    assert not list(service.inbox.processing.iterdir())
    assert [entry.state for entry in service.ledger.entries()] == ["done"]


def test_a_bare_clip_is_a_drop_too(service: Service, clips: Clips) -> None:
    (service.inbox.inbox / "plush_bear.mp4").write_bytes(clips[0].read_bytes())
    service.intake.turn()
    (config,) = service.dispatcher.configs.values()
    assert config.concept.subject == "plush bear"
    assert (Path(config.concept.inputs[0]) / "plush_bear.mp4").is_file()


def test_what_the_file_says_goes_before_the_template(service: Service, clips: Clips) -> None:
    said = "subject: red square\nclass_noun: square\nprompts: ['{subject} at night']\nseed: 7\nmask: true\n"
    service.drop("x", clips[0], said)
    service.intake.turn()
    (config,) = service.dispatcher.configs.values()
    assert (config.concept.subject, config.concept.class_noun, config.seed) == ("red square", "square", 7)
    assert config.samples.prompts == ("{subject} at night",)
    assert config.mask.segmenter == "auto"
    assert config.base == RunConfig().base


def test_the_same_files_twice_are_one_run(service: Service, clips: Clips) -> None:
    service.drop("first", clips[0])
    service.intake.turn()
    service.drop("second", clips[0])
    service.intake.turn()
    assert len(service.dispatcher.configs) == 1
    (again,) = service.inbox.done.iterdir()
    assert "came before as first" in json.loads((again / "reason.json").read_text())["reason"]
    assert (again / "media" / "red.mp4").is_file()


def test_another_wish_for_the_same_clip_is_another_drop(service: Service, clips: Clips) -> None:
    service.drop("one", clips[0], "subject: wolf")
    service.drop("two", clips[0], "subject: dog")
    service.intake.turn()
    assert len(service.dispatcher.configs) == 2


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("sed: 1", "unknown key `sed`"),
        ("base: {source: some/hub-id}", "unknown key `base`"),
        ("seed: dog", "`seed`"),
        ("- a\n- b", "holds no settings"),
        ("a: [", "cannot be read as YAML"),
        ("prompts: ['a {subjec} at night']", "subjec"),
        ("preset: grand", "grand"),
        ("name: 2024-13-45", "month"),
        (f"seed: {'9' * 5000}", "cannot be read as YAML"),
        ("name: " + "[" * 3000, "cannot be read as YAML"),
        ("a: &a [x, x]\nname: *a", "aliases"),
        ("#" * 40_000, "too large"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_lost(service: Service, clips: Clips, said: str, reason: str) -> None:
    service.drop("bad", clips[0], said)
    service.drop("good", clips[1])
    service.intake.turn()
    (rejected,) = service.inbox.rejected.iterdir()
    assert reason in json.loads((rejected / "reason.json").read_text())["reason"]
    assert (rejected / "media" / "red.mp4").read_bytes() == clips[0].read_bytes()
    assert [config.concept_name for config in service.dispatcher.configs.values()] == ["good"]


def test_all_mistakes_of_a_file_are_told_at_once_with_the_keys_of_their_place(service: Service, clips: Clips) -> None:
    service.drop("bad", clips[0], "captions: [{colour: red}]\nseed: dog\nsed: 1")
    service.intake.turn()
    (note,) = service.inbox.rejected.glob("*/reason.json")
    reason = json.loads(note.read_text())["reason"]
    for mistake in ("unknown key `captions.0.colour`", "captions.0.class_noun`: Field", "`seed`: ", "key `sed`"):
        assert mistake in reason
    assert "valid keys of `captions`: class_noun, static, motion," in reason
    assert "valid keys: name, subject," in reason


def test_of_very_many_mistakes_some_are_told(service: Service, clips: Clips) -> None:
    service.drop("bad", clips[0], f"captions: {list(range(1000))}")
    service.intake.turn()
    (note,) = service.inbox.rejected.glob("*/reason.json")
    reason = json.loads(note.read_text())["reason"]
    assert reason.endswith("and 990 more")
    assert len(reason) < 1000


def test_a_rejected_drop_may_come_again_when_it_is_mended(service: Service, clips: Clips) -> None:
    service.drop("bad", clips[0], "sed: 1")
    service.intake.turn()
    service.drop("bad", clips[0], "seed: 1")
    service.intake.turn()
    assert len(service.dispatcher.configs) == 1


def test_links_and_drops_without_media_are_rejected(service: Service, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    (service.inbox.inbox / "linked").mkdir()
    (service.inbox.inbox / "linked" / "a.mp4").symlink_to(secret)
    (service.inbox.inbox / "empty").mkdir()
    (service.inbox.inbox / "empty" / "_READY").touch()
    service.intake.turn()
    reasons = [json.loads(path.read_text())["reason"] for path in service.inbox.rejected.glob("*/reason.json")]
    assert len(reasons) == 2
    assert any("link" in reason for reason in reasons)
    assert any("no media" in reason for reason in reasons)
    assert secret.read_text() == "x"


@pytest.mark.parametrize("name", [b"caf\xe9", b"n" * 250], ids=["no UTF-8", "long"])
@pytest.mark.parametrize("inside", [True, False])
def test_names_that_databases_and_folders_do_not_take(
    service: Service, clips: Clips, name: bytes, inside: bool
) -> None:
    folder = service.drop("odd", clips[0], "sed: 1")
    if inside:
        (folder / os.fsdecode(name)).mkdir()
    else:
        folder.rename(service.inbox.inbox / os.fsdecode(name))
    service.drop("good", clips[1])
    service.intake.turn()
    (reason,) = service.inbox.rejected.glob("*/reason.json")
    assert json.loads(reason.read_text())["reason"]
    assert [config.concept_name for config in service.dispatcher.configs.values()] == ["good"]


def test_one_that_cannot_be_moved_keeps_nobody_waiting(
    service: Service, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.drop("stuck", clips[0])
    service.drop("good", clips[1])
    digest = digest_of

    def unreadable(path: Path) -> str:
        if path.name == "stuck":
            raise PermissionError(f"{path.name} is another's")
        return digest(path)

    monkeypatch.setattr("pipeline_lib.drops.intake.digest_of", unreadable)
    service.intake.turn()
    service.intake.turn()
    assert [config.concept_name for config in service.dispatcher.configs.values()] == ["good"]
    assert sum("stuck stays" in line for line in service.told) == 1


def test_a_server_that_is_down_delays_and_loses_nothing(service: Service, clips: Clips) -> None:
    service.dispatcher.reachable = False
    service.drop("wolf", clips[0])
    service.intake.turn()
    service.intake.turn()
    assert sum("cannot be reached" in line for line in service.told) == 1
    service.dispatcher.reachable = True
    service.intake.turn()
    assert len(service.dispatcher.configs) == 1


@pytest.mark.parametrize("where", ["claim", "take", "submit", "submitted"])
def test_a_death_at_any_point_leaves_exactly_one_run(service: Service, clips: Clips, where: str) -> None:
    """The process ends just after the named act; another one starts with empty memory."""

    class DiedError(BaseException):
        pass

    owner = {"take": service.inbox, "submit": service.dispatcher}.get(where, service.ledger)
    act = getattr(owner, where)

    def die(*arguments: object) -> None:
        act(*arguments)
        raise DiedError

    setattr(owner, where, die)
    service.drop("wolf", clips[0])
    with pytest.raises(DiedError):
        service.intake.turn()
    if owner is service.dispatcher:
        del service.dispatcher.submit  # the class's own again
    service.again()
    service.intake.turn()
    service.intake.turn()
    assert len(service.dispatcher.configs) == 1
    (config,) = service.dispatcher.configs.values()
    assert (Path(config.concept.inputs[0]) / "red.mp4").is_file()
    assert [entry.state for entry in service.ledger.entries()] == ["submitted"]


def test_a_death_while_a_bare_clip_is_moved_loses_nothing(service: Service, clips: Clips) -> None:
    """A file goes into a hidden folder first, which is renamed when it is there."""
    clip = service.inbox.inbox / "wolf.mp4"
    clip.write_bytes(clips[0].read_bytes())
    digest = digest_of(clip)
    service.ledger.claim(digest, clip.name)
    hidden = service.inbox.place(digest).with_name(".media")
    hidden.mkdir(parents=True)
    clip.rename(hidden / clip.name)
    service.again()
    service.intake.turn()
    (config,) = service.dispatcher.configs.values()
    assert (Path(config.concept.inputs[0]) / "wolf.mp4").is_file()


def test_a_refusal_by_the_run_rejects_the_drop(service: Service, clips: Clips) -> None:
    service.drop("wolf", clips[0])
    service.intake.turn()
    (run,) = service.dispatcher.configs
    service.dispatcher.states[run] = Outcome("refused", "too dark")
    service.intake.turn()
    (rejected,) = service.inbox.rejected.iterdir()
    assert json.loads((rejected / "reason.json").read_text())["reason"] == "too dark"


def test_a_drop_that_was_rejected_may_come_again_as_it_is(service: Service, clips: Clips) -> None:
    """A run that was cancelled, or failed for a cause that has been mended since."""
    for attempt in (1, 2):
        service.drop("wolf", clips[0])
        service.intake.turn()
        assert len(service.dispatcher.configs) == attempt
        run = list(service.dispatcher.configs)[-1]
        service.dispatcher.states[run] = Outcome("refused", "its run was cancelled")
        service.intake.turn()
        assert len(list(service.inbox.rejected.iterdir())) == attempt
    assert not list(service.inbox.processing.iterdir())


def test_a_run_that_the_server_does_not_take_rejects_its_drop_and_no_other(service: Service, clips: Clips) -> None:
    take = service.dispatcher.submit

    def picky(key: str, config: RunConfig) -> str:
        if config.seed == 7:
            raise ConfigError("the deployment refuses this run")
        return take(key, config)

    service.dispatcher.submit = picky  # type: ignore[method-assign]
    service.drop("bad", clips[0], "seed: 7")
    service.drop("good", clips[0])
    service.intake.turn()
    assert [config.concept_name for config in service.dispatcher.configs.values()] == ["good"]
    assert len(list(service.inbox.rejected.iterdir())) == 1


def test_a_death_while_rejecting_is_made_good(service: Service, clips: Clips) -> None:
    service.drop("wolf", clips[0], "sed: 1")
    mark, service.ledger.rejected = service.ledger.rejected, lambda *_: None  # type: ignore[method-assign]
    service.intake.turn()
    service.ledger.rejected = mark  # type: ignore[method-assign]
    assert [entry.state for entry in service.ledger.entries()] == ["claimed"]
    service.again()
    service.intake.turn()
    (entry,) = service.ledger.entries()
    assert (entry.state, "unknown key" in entry.reason) == ("rejected", True)


def test_a_death_while_a_run_rejects_is_made_good(service: Service, clips: Clips) -> None:
    service.drop("wolf", clips[0])
    service.intake.turn()
    (run,) = service.dispatcher.configs
    service.dispatcher.states[run] = Outcome("refused", "too dark")
    mark, service.ledger.rejected = service.ledger.rejected, lambda *_: None  # type: ignore[method-assign]
    service.intake.turn()
    service.ledger.rejected = mark  # type: ignore[method-assign]
    service.again()
    service.intake.turn()
    assert [entry.state for entry in service.ledger.entries()] == ["rejected"]
    assert not list(service.inbox.processing.iterdir())


def test_a_run_that_the_server_has_lost_is_submitted_again(service: Service, clips: Clips) -> None:
    service.drop("x", clips[0])
    service.intake.turn()
    ((run, config),) = service.dispatcher.configs.items()
    service.dispatcher.configs.clear()  # deleted in the UI, or another database than before
    service.intake.turn()
    service.intake.turn()
    assert service.dispatcher.configs == {run: config}
    assert any("not known to the server" in line for line in service.told)
    service.dispatcher.states[run] = Outcome("well")
    service.intake.turn()
    assert [entry.state for entry in service.ledger.entries()] == ["done"]


def test_one_that_cannot_be_read_keeps_nobody_waiting(
    service: Service, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline_lib.drops import folder_inbox

    real = folder_inbox.opened

    def opened(path: Path, name: str) -> object:
        if name == "a-broken-disk":
            raise OSError(5, "Input/output error")
        return real(path, name)

    monkeypatch.setattr(folder_inbox, "opened", opened)
    service.drop("a-broken-disk", clips[0])
    service.drop("well", clips[1])
    service.intake.turn()
    service.intake.turn()
    assert [config.concept_name for config in service.dispatcher.configs.values()] == ["well"]
    assert sum("Input/output error" in line for line in service.told) == 1
    monkeypatch.undo()
    service.intake.turn()
    assert len(service.dispatcher.configs) == 2


def test_drops_keep_their_order(service: Service, clips: Clips) -> None:
    names = [f"drop{number}" for number in (3, 1, 2)]
    for number, name in enumerate(names):
        service.drop(name, clips[0], f"seed: {number}")
    service.intake.turn()
    assert [config.concept_name for config in service.dispatcher.configs.values()] == names
