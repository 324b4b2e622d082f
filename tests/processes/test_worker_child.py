"""The worker child against the real thing: real processes, real pipes, real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline_lib.errors import (
    MediaError,
    NonFiniteError,
    PipelineError,
    ResourceError,
    StopRequested,
    WorkerError,
)
from pipeline_lib.processes.worker_child import WorkerChild, WorkerDiedError
from pipeline_lib.storage import ArtifactStore

HERE = Path(__file__).parent
COMMAND = [sys.executable, str(HERE / "child_program.py")]


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerChild]:
    with WorkerChild(COMMAND, log_path=tmp_path / "logs" / "worker.log", stall_seconds=20, grace_seconds=5) as child:
        yield child


def ignore(_event: dict[str, Any]) -> None:
    pass


def eventually(condition: Callable[[], bool], seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_one_child_answers_many_requests_with_events_in_order(tmp_path: Path) -> None:
    events: list[int] = []
    with WorkerChild(COMMAND, log_path=tmp_path / "log", env={"MANNERISM_TEST": "set"}) as worker:
        assert worker.pid == 0
        first = worker.request("echo", {"events": 200}, lambda event: events.append(event["number"]))
        second = worker.request("echo", {"text": "ü\n" * 50_000}, ignore)
        pid = worker.pid
        assert first["pid"] == second["pid"] == pid
        assert os.getsid(pid) == pid
    assert events == list(range(200))
    assert second["payload"]["text"] == "ü\n" * 50_000
    assert first["variable"] == "set"
    assert gone(pid)
    assert worker.pid == 0


def test_chatter_goes_to_the_log_and_cannot_forge_replies(worker: WorkerChild) -> None:
    assert worker.request("chat", {}, ignore) == {"read": ""}
    said = worker.log_path.read_text()
    assert "a library chats" in said
    assert "a program chats" in said
    assert "forged" in said


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("media", MediaError, "clip.mp4 has no frames; got 0; expected 5 or more; use another clip"),
        ("own", MediaError, "clip.mp4 is odd"),
        ("non_finite", NonFiniteError, "loss is nan at step 3"),
        ("memory", ResourceError, "out of memory during fail: MemoryError"),
        ("torch", ResourceError, "out of memory during fail: DefaultCPUAllocator"),
        ("bug", WorkerError, "fail failed: ZeroDivisionError: division by zero; the traceback is in"),
    ],
)
def test_errors_cross_the_pipe_as_they_are(worker, how: str, kind: type[PipelineError], words: str) -> None:
    with pytest.raises(kind) as caught:
        worker.request("fail", {"how": how}, ignore)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(words)
    if isinstance(caught.value, MediaError) and how == "media":
        assert caught.value.fix == "use another clip"
    assert "Traceback" in worker.log_path.read_text()


def test_input_errors_do_not_cost_the_child(worker: WorkerChild) -> None:
    pid = worker.request("echo", {}, ignore)["pid"]
    with pytest.raises(MediaError):
        worker.request("fail", {"how": "media"}, ignore)
    assert worker.request("echo", {}, ignore)["pid"] == pid


def test_unknown_verb_is_a_worker_error(worker: WorkerChild) -> None:
    with pytest.raises(WorkerError, match="'dance'"):
        worker.request("dance", {}, ignore)


def test_stop_reaches_the_handler_which_checkpoints(worker: WorkerChild, tmp_path: Path) -> None:
    def stop_at_ten(event: dict[str, Any]) -> None:
        if event["step"] == 10:
            worker.stop()

    with pytest.raises(StopRequested, match="stopped at step"):
        worker.request("train", {"folder": str(tmp_path)}, stop_at_ten)
    assert int((tmp_path / "checkpoint").read_text()) > 10
    # A stop is for one request only.
    assert worker.request("echo", {}, ignore)["pid"] == worker.pid


def test_stop_from_another_thread(worker: WorkerChild, tmp_path: Path) -> None:
    threading.Timer(0.5, worker.stop).start()
    with pytest.raises(StopRequested):
        worker.request("train", {"folder": str(tmp_path)}, ignore)


def test_child_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    with (
        WorkerChild(COMMAND, log_path=tmp_path / "log", grace_seconds=0.5) as worker,
        pytest.raises(WorkerError, match=r"did not stop within 0\.5 s"),
    ):
        worker.request("hang", {}, lambda _event: worker.stop())


def test_interrupted_wait_lets_the_child_checkpoint_and_ends_it(worker: WorkerChild, tmp_path: Path) -> None:
    def interrupt(event: dict[str, Any]) -> None:
        if event["step"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        worker.request("train", {"folder": str(tmp_path)}, interrupt)
    assert int((tmp_path / "checkpoint").read_text()) > 5
    assert worker.pid == 0


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGKILL, "SIGKILL .probably out of memory"), (signal.SIGSEGV, "SIGSEGV"), (0, "exited with code 7")],
)
def test_death_is_a_worker_error_and_the_next_request_starts_afresh(worker, number: int, words: str) -> None:
    pid = worker.request("echo", {}, ignore)["pid"]
    with pytest.raises(WorkerDiedError, match=words) as caught:
        worker.request("die", {"signal": int(number)}, ignore)
    assert caught.value.killed == (number == signal.SIGKILL)
    assert not caught.value.out_of_memory  # that was us, not the kernel
    assert "worker.log (about to end)" in str(caught.value)
    assert worker.request("echo", {}, ignore)["pid"] != pid


def test_a_kill_by_the_kernel_says_what_to_do(worker: WorkerChild) -> None:
    worker.request("echo", {}, ignore)
    worker._kernel_kills -= 1  # as if the kernel had killed since
    with pytest.raises(WorkerDiedError, match=r"out of memory during die.*choose a smaller size") as caught:
        worker.request("die", {"signal": int(signal.SIGKILL)}, ignore)
    assert caught.value.out_of_memory


def test_child_that_died_between_requests_is_started_again(worker: WorkerChild) -> None:
    pid = worker.request("echo", {}, ignore)["pid"]
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: worker.pid == 0)  # its last thread may end after its first is a zombie
    assert worker.request("echo", {}, ignore)["pid"] != pid


def test_program_that_cannot_start_says_why(tmp_path: Path) -> None:
    with (
        WorkerChild([sys.executable, "-c", "import nothing_here"], log_path=tmp_path / "log") as worker,
        pytest.raises(WorkerError, match=r"exited with code 1.*No module named 'nothing_here'"),
    ):
        worker.request("echo", {}, ignore)


@pytest.mark.parametrize(
    ("limits", "wall", "words"), [({"stall_seconds": 6.0}, 60, "no sign of life"), ({}, 6, "not done after 6 s")]
)
def test_watchdogs_kill_the_child_and_all_it_started(tmp_path: Path, limits, wall: float, words: str) -> None:
    grandchildren: list[int] = []
    with WorkerChild(COMMAND, log_path=tmp_path / "log", **limits) as worker:
        with pytest.raises(WorkerError, match=words):
            worker.request("hang", {}, lambda event: grandchildren.append(event["grandchild"]), wall_seconds=wall)
        assert worker.pid == 0
    assert eventually(lambda: gone(grandchildren[0]))


def test_closing_a_hanging_child_kills_its_group(tmp_path: Path) -> None:
    worker = WorkerChild(COMMAND, log_path=tmp_path / "log", grace_seconds=0.2)
    seen: list[int] = []

    def close(event: dict[str, Any]) -> None:
        seen.extend([worker.pid, event["grandchild"]])
        raise RuntimeError("the parent gives up")

    with pytest.raises(RuntimeError, match="gives up"):
        worker.request("hang", {}, close)
    assert eventually(lambda: all(gone(pid) for pid in seen))


def test_closing_an_idle_child_does_not_wait_for_its_interpreter_to_tidy_up(tmp_path: Path) -> None:
    worker = WorkerChild(COMMAND, log_path=tmp_path / "log", grace_seconds=60)
    worker.request("linger", {}, ignore)
    pid, started = worker.pid, time.monotonic()
    worker.close()
    assert time.monotonic() - started < 20
    assert gone(pid)


def test_closing_a_child_that_does_not_listen_yet_does_not_wait(tmp_path: Path) -> None:
    importing = [sys.executable, "-c", "import sys, time; sys.stderr.write('importing'); time.sleep(600)"]
    worker = WorkerChild(importing, log_path=tmp_path / "log", grace_seconds=60)
    failures: list[BaseException] = []

    def request() -> None:
        try:
            worker.request("echo", {}, ignore)
        except WorkerError as error:
            failures.append(error)

    thread = threading.Thread(target=request)
    thread.start()
    assert eventually(lambda: (tmp_path / "log").exists() and "importing" in (tmp_path / "log").read_text(), 60)
    started = time.monotonic()
    worker.close()
    thread.join(20)
    assert time.monotonic() - started < 20
    assert len(failures) == 1


def test_terminated_child_checkpoints(worker: WorkerChild, tmp_path: Path) -> None:
    def terminate(event: dict[str, Any]) -> None:
        if event["step"] == 3:
            os.kill(worker.pid, signal.SIGTERM)

    with pytest.raises(StopRequested):
        worker.request("train", {"folder": str(tmp_path)}, terminate)
    assert (tmp_path / "checkpoint").exists()


def test_forked_helpers_of_the_child_can_be_ended(worker: WorkerChild) -> None:
    assert worker.request("fork", {}, ignore) == {"code": -signal.SIGTERM}


def start_parent(folder: Path, verb: str, **env: str) -> tuple[subprocess.Popen[str], dict[str, int]]:
    parent = subprocess.Popen(
        [sys.executable, str(HERE / "parent_program.py"), str(folder), verb],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )
    assert parent.stdout is not None
    return parent, json.loads(parent.stdout.readline())


def test_killed_parent_leaves_a_checkpoint_and_no_orphan(tmp_path: Path) -> None:
    parent, event = start_parent(tmp_path, "train")
    parent.kill()
    parent.wait()
    assert eventually(lambda: gone(event["pid"]), seconds=3)
    assert (tmp_path / "checkpoint").exists()


def test_killed_parent_with_a_hanging_child_leaves_no_orphan_either(tmp_path: Path) -> None:
    parent, event = start_parent(tmp_path, "hang", GRACE="0.5")
    parent.kill()
    parent.wait()
    assert eventually(lambda: gone(event["pid"]) and gone(event["grandchild"]), seconds=4)
    assert "did not stop in time" in (tmp_path / "worker.log").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux only")
def test_parents_death_is_noticed_even_while_somebody_holds_the_pipe(tmp_path: Path) -> None:
    program = (
        "import os, subprocess, sys, time\n"
        "read, write = os.pipe()\n"
        "child = subprocess.Popen(sys.argv[2:], stdin=read, stdout=subprocess.PIPE)\n"
        'os.write(write, b\'{"id": 1, "verb": "train", "payload": {"folder": "%s"}}\\n\' % sys.argv[1].encode())\n'
        "if os.fork() == 0: time.sleep(30); os._exit(0)\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), *COMMAND],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    try:
        pid = int(parent.stdout.readline())
        parent.kill()
        assert eventually(lambda: gone(pid), seconds=3)
        assert (tmp_path / "checkpoint").exists()
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()
        parent.stdout.close()


def test_end_of_the_starting_thread_does_not_stop_the_child(worker: WorkerChild, tmp_path: Path) -> None:
    thread = threading.Thread(target=lambda: worker.request("echo", {}, ignore))
    thread.start()
    thread.join()
    pid = worker.pid
    time.sleep(0.2)
    assert worker.request("echo", {}, ignore)["pid"] == pid


def test_child_killed_while_storing_leaves_nothing_half_written(worker: WorkerChild, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    payload = {"root": str(store.root), "seconds": 60}
    with pytest.raises(WorkerError, match="SIGKILL"):
        worker.request("store", payload, lambda _event: os.kill(worker.pid, signal.SIGKILL))
    assert store.find("latents", "key") is None
    assert list(store.root.glob("artifacts/*/*")) == []
    reply = worker.request("store", {**payload, "seconds": 0}, ignore)
    found = store.find("latents", "key")
    assert found is not None
    assert found.ref.model_dump() == reply
    assert list(store.root.glob("tmp/*/*")) == []


def test_child_knows_neither_prefect_nor_mlflow_nor_torch(worker: WorkerChild) -> None:
    loaded = set(worker.request("modules", {}, ignore)["modules"])
    assert "pipeline_lib" in loaded
    assert not loaded & {"prefect", "mlflow", "torch"}
