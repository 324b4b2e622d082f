"""The artifact store: served only when whole, made once, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from pipeline_lib.errors import ArtifactError, ResourceError, StopRequested
from pipeline_lib.records import ArtifactRef
from pipeline_lib.storage import Artifact, ArtifactStore, disk_errors, write_atomic
from pipeline_lib.storage.tensors import save_tensors

KIND = "latents"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def key_of(store: ArtifactStore, settings: object = None) -> str:
    return store.key(KIND, [], settings, 1, {})


def write(folder: Path, content: bytes = b"content") -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "a.bin").write_bytes(content)
    (folder / "b.txt").write_bytes(b"text")


def build(store: ArtifactStore, key: str) -> Artifact:
    return store.build(KIND, key, write, {"seconds": 1.5})


def leftovers(store: ArtifactStore) -> list[Path]:
    return [*store.root.glob("tmp/*/*"), *store.root.glob("artifacts/*/*")]


def test_built_artifact_is_found_by_another_store_with_its_manifest(store: ArtifactStore) -> None:
    source = ArtifactRef(kind="clip", key="k", digest="d")
    key = store.key(KIND, [source], {"size": [32, 48]}, 3, {"dtype": "float32"})
    assert store.find(KIND, key) is None
    made = build(store, key)
    found = ArtifactStore(store.root).find(KIND, key)
    assert found == made
    manifest = found.manifest
    assert [entry.path for entry in manifest.files] == ["b.txt", "deep/a.bin"]
    assert [entry.size for entry in manifest.files] == [4, 7]
    assert (manifest.inputs, manifest.settings, manifest.version) == ((source,), {"size": [32, 48]}, 3)
    assert (manifest.extra, manifest.notes) == ({"dtype": "float32"}, {"seconds": 1.5})
    assert store.folder(made.ref) == made.folder
    assert list(store.manifests()) == [manifest]


def test_key_depends_on_every_ingredient_and_on_no_order_of_names(store: ArtifactStore) -> None:
    ref, other = ArtifactRef(kind="a", key="1", digest="x"), ArtifactRef(kind="a", key="2", digest="y")
    base = ("k", [ref, other], {"a": 1, "b": [2]}, 1, {"seed": "0"})
    variants = [
        ("j", *base[1:]),
        ("k", [other, ref], *base[2:]),
        ("k", [ref], *base[2:]),
        ("k", base[1], {"a": 1, "b": [3]}, 1, {"seed": "0"}),
        ("k", base[1], base[2], 2, {"seed": "0"}),
        ("k", base[1], base[2], 1, {"seed": "1"}),
    ]
    assert len({store.key(*base), *(store.key(*variant) for variant in variants)}) == 7
    assert store.key(*base) == store.key("k", [ref, other], {"b": [2], "a": 1}, 1, {"seed": "0"})
    # What an input was made from does not matter, only what it holds.
    assert store.key(*base) == store.key("k", [ArtifactRef(kind="a", key="9", digest="x"), other], *base[2:])


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
                    | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_key_survives_a_json_round_trip_of_its_settings(settings: object) -> None:
    store = ArtifactStore(Path("unused"))
    assert key_of(store, settings) == key_of(store, json.loads(json.dumps(settings)))


def test_settings_that_are_not_finite_json_are_refused(store: ArtifactStore) -> None:
    with pytest.raises(ValueError, match="JSON"):
        key_of(store, float("nan"))
    with pytest.raises(TypeError):
        key_of(store, Path("x"))


def test_digest_tells_contents_not_ingredients(store: ArtifactStore) -> None:
    first, second = build(store, key_of(store, 1)), build(store, key_of(store, 2))
    third = store.build(KIND, key_of(store, 3), lambda folder: write(folder, b"other"))
    assert first.ref.digest == second.ref.digest != third.ref.digest


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "deep" / "a.bin").write_bytes(b"contenT"),
        lambda folder: (folder / "deep" / "a.bin").write_bytes(b"conten"),
        lambda folder: (folder / "deep" / "a.bin").unlink(),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "b.txt").rename(folder / "c.txt"),
        lambda folder: ((folder / "b.txt").unlink(), (folder / "b.txt").symlink_to(folder / "deep" / "a.bin")),
        lambda folder: (folder / "manifest.json").write_text(
            (folder / "manifest.json").read_text().replace("b.txt", "../b.txt")
        ),
    ],
)
def test_corrupt_artifact_is_set_aside_reported_and_made_again(store, caplog, damage) -> None:
    key = key_of(store)
    made = build(store, key)
    time.sleep(0.03)  # past the tick within which checksums are not remembered
    store.find(KIND, key)
    damage(made.folder)
    with pytest.raises(ArtifactError, match="run again"):
        store.folder(made.ref)
    assert "moved to" in caplog.text
    (aside,) = store.root.glob(f"quarantine/{KIND}/*")
    assert json.loads((aside / "reason.json").read_text())["reason"]
    assert build(store, key).ref == made.ref


def test_reference_to_other_contents_is_refused(store: ArtifactStore) -> None:
    made = build(store, key_of(store))
    with pytest.raises(ArtifactError, match="not the one"):
        store.get(made.ref.model_copy(update={"digest": "0" * 64}))


def test_failing_make_leaves_nothing_but_its_work_folder(store: ArtifactStore) -> None:
    key = key_of(store)

    def fail(folder: Path) -> None:
        write(folder)
        (store.work_folder(KIND, key) / "checkpoint").write_text("step 7")
        raise RuntimeError("stop")

    def resume(folder: Path) -> None:
        (folder / "step").write_text((store.work_folder(KIND, key) / "checkpoint").read_text())

    with pytest.raises(RuntimeError, match="stop"):
        store.build(KIND, key, fail)
    assert leftovers(store) == []
    made = store.build(KIND, key, resume)
    assert (made.folder / "step").read_text() == "step 7"
    assert list(store.root.glob("work/*/*")) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), OSError(errno.EDQUOT, "quota")])
def test_disk_full_is_a_resource_error_that_names_the_folder(store: ArtifactStore, error: OSError) -> None:
    def fill(folder: Path) -> None:
        write(folder)
        raise error

    with pytest.raises(ResourceError, match=rf"{store.root}.*mannerism prune --older-than-days 0"):
        store.build(KIND, key_of(store), fill)
    assert leftovers(store) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux only")
def test_real_disk_full_from_python_and_torch_is_recognised(tmp_path: Path) -> None:
    # Through a link: a library that replaces its target, run as root, must not replace the device.
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    with pytest.raises(ResourceError), disk_errors(Path("x"), "bytes"), full.open("wb", 0) as stream:
        stream.write(b"x")
    with pytest.raises(ResourceError), disk_errors(Path("x"), "tensors"):
        torch.save({"w": torch.zeros(100_000)}, full)
    with pytest.raises(ZeroDivisionError), disk_errors(Path("x"), "numbers"):
        _ = 1 / 0


def test_links_and_reserved_names_and_emptiness_are_refused(store: ArtifactStore, tmp_path: Path) -> None:
    for make in (
        lambda folder: (folder / "link").symlink_to(tmp_path),
        lambda folder: os.mkfifo(folder / "pipe"),
        lambda folder: (folder / "manifest.json").write_text("{}"),
        lambda folder: None,
    ):
        with pytest.raises(ArtifactError):
            store.build(KIND, key_of(store), make)
    assert leftovers(store) == []


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a\0", "x" * 200, "a@b"])
def test_names_that_could_leave_the_store_are_refused(store: ArtifactStore, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name"):
        store.find(name, "key")
    with pytest.raises(ValueError, match="cannot name"):
        store.work_folder(KIND, name)


def test_many_callers_make_once(store: ArtifactStore) -> None:
    made, results, key = [], [], key_of(store)

    def slow(folder: Path) -> None:
        made.append(1)
        time.sleep(0.1)
        write(folder)

    def call() -> None:
        results.append(ArtifactStore(store.root).build(KIND, key, slow).ref)

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(results) == 6
    assert len(set(results)) == 1


def test_waiting_for_another_maker_is_told_and_can_be_given_up(store: ArtifactStore) -> None:
    key, told = key_of(store), []

    def give_up(status: str) -> None:
        told.append(status)
        raise StopRequested(status)

    def make(folder: Path) -> None:
        write(folder)
        with pytest.raises(StopRequested):
            ArtifactStore(store.root, on_wait=give_up).build(KIND, key, write)

    build_in_thread = threading.Thread(target=lambda: store.build(KIND, key, make))
    build_in_thread.start()
    build_in_thread.join()
    assert told == [f"waiting for another process that makes latents {key[:12]}"]
    assert store.find(KIND, key) is not None


def test_killed_builder_frees_its_key_and_its_leftovers_go(store: ArtifactStore) -> None:
    key = key_of(store)
    program = (
        "import sys, time; from pathlib import Path; from pipeline_lib.storage import ArtifactStore\n"
        "def make(folder):\n"
        "    (folder / 'half').write_text('half'); print('making', flush=True); time.sleep(60)\n"
        f"ArtifactStore(Path(sys.argv[1])).build('{KIND}', '{key}', make)"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(store.root)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "making\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert store.find(KIND, key) is None
    assert [path.name for path in leftovers(store)] == [key]
    made = build(store, key)
    assert not (made.folder / "half").exists()
    assert leftovers(store) == [made.folder]


def test_prune_spares_the_kept_the_recent_and_what_is_being_made(store: ArtifactStore) -> None:
    artifact = build(store, key_of(store, 1))
    kept = store.build("concept", key_of(store, 2), write)
    checkpoint = store.work_folder("concept", "interrupted") / "checkpoint"  # of a kept kind: it goes all the same
    checkpoint.write_text("step 7")
    assert store.prune(timedelta(hours=1)) == []

    def while_making(folder: Path) -> None:
        write(folder)
        (store.work_folder(KIND, "busy") / "checkpoint").write_text("step 1")
        told = store.prune(timedelta(0), keep_kinds=["concept"], dry_run=True)
        assert {(entry.place, entry.key) for entry in told} == {
            ("artifacts", artifact.ref.key),
            ("work", "interrupted"),
        }

    busy = store.build(KIND, "busy", while_making)
    assert artifact.folder.exists()
    removed = store.prune(timedelta(0), keep_kinds=["concept"])
    assert {entry.key for entry in removed} == {artifact.ref.key, busy.ref.key, "interrupted"}
    assert all(entry.size > 0 for entry in removed)
    assert leftovers(store) == [kept.folder]
    assert not checkpoint.exists()


def test_find_is_quick_once_verified(store: ArtifactStore) -> None:
    def many(folder: Path) -> None:
        for index in range(20):
            (folder / f"{index}.bin").write_bytes(os.urandom(1 << 20))

    key = key_of(store)
    store.build(KIND, key, many)
    time.sleep(0.03)
    store.find(KIND, key)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        store.find(KIND, key)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.005


def test_write_atomic_replaces_whole_files_and_leaves_no_trace(tmp_path: Path) -> None:
    target = tmp_path / "settings.json"
    write_atomic(target, "first")
    write_atomic(target, b"second")
    assert target.read_text() == "second"
    with pytest.raises(UnicodeEncodeError):
        write_atomic(target, "\ud800")
    assert target.read_text() == "second"
    assert list(tmp_path.iterdir()) == [target]


TENSORS = {"b": torch.arange(12.0).reshape(3, 4).T, "a": torch.ones(5, dtype=torch.bfloat16), "none": torch.zeros(0, 2)}
HEADER = {f"word {index}": f"“{index}”" for index in range(16)}


def test_tensors_come_back_equal(store: ArtifactStore) -> None:
    made = store.build(KIND, key_of(store), lambda folder: save_tensors(folder / "t.safetensors", TENSORS, HEADER))
    with safe_open(made.folder / "t.safetensors", framework="pt") as file:
        assert file.metadata() == HEADER
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype


def test_equal_tensors_are_equal_bytes_in_two_processes(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.test_storage import HEADER, TENSORS, save_tensors\n"
        "save_tensors(Path(sys.argv[1]), dict(reversed(TENSORS.items())), dict(reversed(HEADER.items())))"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "child")], check=True, cwd=Path(__file__).parents[1])
    save_tensors(tmp_path / "parent", TENSORS, HEADER)
    assert (tmp_path / "child").read_bytes() == (tmp_path / "parent").read_bytes()
