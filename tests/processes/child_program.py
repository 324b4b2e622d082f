"""A real worker child for the tests: small handlers around the real main loop."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pipeline_lib import errors
from pipeline_lib.processes.protocol import Emit, StopFlag
from pipeline_lib.processes.serve import serve
from pipeline_lib.storage import ArtifactStore

Payload = dict[str, Any]


class OwnMediaError(errors.MediaError):
    """A subclass that the parent has never heard of."""


def echo(payload: Payload, emit: Emit, stop: StopFlag) -> Payload:
    for number in range(payload.get("events", 0)):
        emit({"number": number})
    return {"pid": os.getpid(), "payload": payload, "variable": os.environ.get("MANNERISM_TEST", "")}


def chat(payload: Payload, emit: Emit, stop: StopFlag) -> Payload:
    print("a library chats")  # noqa: T201
    os.write(1, b'{"id": 1, "reply": {"forged": true}}\n')
    subprocess.run(["echo", "a program chats"], check=True)
    read = subprocess.run(["cat"], capture_output=True, check=True).stdout
    return {"read": read.decode()}


def train(payload: Payload, emit: Emit, stop: StopFlag) -> Payload:
    folder = Path(payload["folder"])
    for step in range(1_000_000):
        if stop():
            (folder / "checkpoint").write_text(str(step))
            raise errors.StopRequested(f"stopped at step {step}")
        emit({"step": step})
        time.sleep(0.01)
    return {}


def fail(payload: Payload, emit: Emit, stop: StopFlag) -> Payload:
    raise {
        "media": errors.MediaError("clip.mp4 has no frames", got="0", expected="5 or more", fix="use another clip"),
        "own": OwnMediaError("clip.mp4 is odd"),
        "non_finite": errors.NonFiniteError("loss is nan at step 3"),
        "memory": MemoryError(),
        "torch": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 GB"),
        "bug": ZeroDivisionError("division by zero"),
    }[payload["how"]]


def hang(payload: Payload, emit: Emit, stop: StopFlag) -> Payload:
    grandchild = subprocess.Popen(["sleep", "600"])
    emit({"grandchild": grandchild.pid})
    time.sleep(600)
    return {}


def fork(payload: Payload, emit: Emit, stop: StopFlag) -> Payload:
    context = multiprocessing.get_context("fork")
    running = context.Event()
    helper = context.Process(target=lambda: (running.set(), time.sleep(60)))
    helper.start()
    running.wait()
    helper.terminate()
    helper.join(5)
    return {"code": helper.exitcode}


def die(payload: Payload, emit: Emit, stop: StopFlag) -> Payload:
    sys.stderr.write("about to end\n")
    if payload["signal"]:
        os.kill(os.getpid(), payload["signal"])
    os._exit(7)


def store(payload: Payload, emit: Emit, stop: StopFlag) -> Payload:
    def make(folder: Path) -> None:
        (folder / "half").write_text("half")
        emit({"making": True})
        time.sleep(payload["seconds"])

    return ArtifactStore(Path(payload["root"])).build("latents", "key", make).ref.model_dump()


def linger(payload: Payload, emit: Emit, stop: StopFlag) -> Payload:
    atexit.register(time.sleep, 600)
    return {}


def modules(payload: Payload, emit: Emit, stop: StopFlag) -> Payload:
    return {"modules": sorted({name.partition(".")[0] for name in sys.modules})}


if __name__ == "__main__":
    handlers = (echo, chat, train, fail, hang, fork, die, store, linger, modules)
    serve({handler.__name__: handler for handler in handlers}, grace_seconds=float(os.environ.get("GRACE", "60")))
