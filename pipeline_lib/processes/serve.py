"""The child's main loop: requests on stdin, events and replies on what was stdout, everything else to stderr.

The child outlives neither its work nor its parent: end of stdin, SIGTERM and the parent's death set the
stop flag; the running handler checkpoints and raises `StopRequested`; a handler that does not listen is
ended after a grace time.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from types import FrameType
from typing import Any

from pipeline_lib.processes.protocol import Handler, Message, decode, encode, error_to_message

GRACE_SECONDS = 120.0
_PR_SET_PDEATHSIG = 1


def serve(handlers: Mapping[str, Handler], *, grace_seconds: float = GRACE_SECONDS) -> None:
    """Answers requests until the parent closes the pipe or a signal asks to leave.

    A handler gets the payload, a function that sends a progress event, and a stop flag to look at between
    steps; once the flag is up it should checkpoint and raise `StopRequested`. Errors of
    `pipeline_lib.errors` reach the parent as they are; running out of memory as `ResourceError`; anything
    else as `WorkerError`, with the traceback on stderr.

    Args:
        handlers: what to run for each verb.
        grace_seconds: how long a handler may go on after the parent is gone or SIGTERM came.
    """
    _Server(handlers, grace_seconds).run()


class _Server:
    def __init__(self, handlers: Mapping[str, Handler], grace_seconds: float) -> None:
        self._handlers, self._grace_seconds = handlers, grace_seconds
        self._parent = os.getppid()
        self._requests_fd, self._replies_fd = _claim_pipes()
        self._write_lock = threading.Lock()
        # SimpleQueue: its put may be called from a signal handler.
        self._requests: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._left: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._leaving = False
        self._stopped: set[int] = set()

    def run(self) -> None:
        self._watch_signals()
        threading.Thread(target=self._read, name="requests", daemon=True).start()
        threading.Thread(target=self._end_in_time, name="end in time", daemon=True).start()
        while not self._leaving and (request := self._requests.get()) is not None:
            self._answer(request)
        _end_own_children()

    def _answer(self, request: Message) -> None:
        number, verb = int(request["id"]), str(request["verb"])

        def emit(event: dict[str, Any]) -> None:
            self._send({"id": number, "event": event})

        def stop() -> bool:
            return self._leaving or number in self._stopped

        try:
            self._send({"id": number, "reply": self._handlers[verb](request["payload"], emit, stop)})
        except Exception as error:
            traceback.print_exc()
            self._send({"id": number, "error": error_to_message(error, verb)})
        self._stopped.discard(number)

    def _send(self, message: Message) -> None:
        line = encode(message)
        try:
            with self._write_lock:
                _write_all(self._replies_fd, line)
        except BrokenPipeError:
            self._leave()  # nobody listens; the handler shall still reach its checkpoint

    def _read(self) -> None:
        with os.fdopen(self._requests_fd, "rb") as stream:
            for line in stream:
                message = decode(line)
                if message is None:
                    continue
                if "stop" in message:
                    self._stopped.add(int(message["stop"]))
                else:
                    self._requests.put(message)
        self._leave()

    def _leave(self) -> None:
        if not self._leaving:
            self._leaving = True
            self._requests.put(None)
            self._left.put(None)

    def _end_in_time(self) -> None:
        self._left.get()
        time.sleep(self._grace_seconds)
        _end_own_group()

    def _watch_signals(self) -> None:
        def leave(_number: int, _frame: FrameType | None) -> None:
            self._leave()

        def leave_if_orphaned(_number: int, _frame: FrameType | None) -> None:
            # The signal also comes when only the thread that started us ends.
            if os.getppid() != self._parent:
                self._leave()

        signal.signal(signal.SIGTERM, leave)
        signal.signal(signal.SIGINT, leave)
        signal.signal(signal.SIGHUP, leave_if_orphaned)
        os.register_at_fork(after_in_child=_default_signals)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGHUP), 0, 0, 0)
            if os.getppid() != self._parent:  # it died before we asked
                self._leave()


def _default_signals() -> None:
    # A forked helper (a loader's process) must end when it is told to.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _claim_pipes() -> tuple[int, int]:
    """The protocol's own descriptors; from here on fd 0 is empty and fd 1 is stderr, for libraries that chat."""
    requests, replies = os.dup(0), os.dup(1)  # duplicates are not inherited by programs we start
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return requests, replies


def _write_all(descriptor: int, line: bytes) -> None:
    view = memoryview(line)
    while view:
        view = view[os.write(descriptor, view) :]


def _end_own_children() -> None:
    if os.getpgrp() == os.getpid():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(os.getpid(), signal.SIGTERM)


def _end_own_group() -> None:
    sys.stderr.write("the running request did not stop in time; the worker ends itself\n")
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)
