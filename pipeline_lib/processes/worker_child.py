"""The parent's side of the worker child: one process that holds the models and does one request at a time."""

from __future__ import annotations

import logging
import math
import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline_lib.errors import WorkerError
from pipeline_lib.processes.grace import CHECKPOINT_SECONDS
from pipeline_lib.processes.out_of_memory import kernel_kills
from pipeline_lib.processes.protocol import MORE_MEMORY, Message, decode, encode, error_from_message

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
_BAR = re.compile(r"\d%\|")  # a progress bar of a library tells nothing
_Process = subprocess.Popen[bytes]
_Messages = queue.SimpleQueue[Message | None]
_Limit = tuple[float, str]  # seconds, and where they are set


class WorkerDiedError(WorkerError):
    """The child ended by itself, or was killed by somebody else than us.

    Args:
        text: what happened.
        killed: by SIGKILL.
        out_of_memory: the kernel killed for want of memory while the child lived.
    """

    def __init__(self, text: str, *, killed: bool = False, out_of_memory: bool = False) -> None:
        super().__init__(text)
        self.killed, self.out_of_memory = killed, out_of_memory


class WorkerChild:
    """Starts the child on the first request, watches it, ends it and all that it started.

    The child runs in a session of its own: Ctrl-C reaches the parent only, which decides. A child that
    crashed is started again by the next request. Use it as a context manager.

    Args:
        command: the child's program and arguments; it calls `processes.serve.serve`.
        log_path: the child's stderr is appended here. The file is the child's own, not a pipe through the
            parent: what it writes after the parent's death must not fail.
        stall_seconds: silence during a request after which the child is killed; `math.inf` waits for ever.
        grace_seconds: how long the child may take to checkpoint once it is asked to stop.
        env: variables over the parent's own.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log_path: Path,
        stall_seconds: float = math.inf,
        grace_seconds: float = CHECKPOINT_SECONDS,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.log_path, self.stall_seconds, self.grace_seconds = log_path, stall_seconds, grace_seconds
        self._command, self._env = tuple(command), dict(env or {})
        self._process: _Process | None = None
        self._kernel_kills = 0
        self._messages: _Messages = queue.SimpleQueue()
        self._one_at_a_time = threading.Lock()
        self._number = 0
        self._stop_by = math.inf
        self._busy = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The child's process id; 0 while there is none, or none that lives."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def request(
        self,
        verb: str,
        payload: Mapping[str, Any],
        on_event: Callable[[dict[str, Any]], None],
        *,
        wall_seconds: float = math.inf,
        wall_setting: str = "",
    ) -> dict[str, Any]:
        """Runs one request in the child and waits for its reply.

        When `on_event` raises, or the wait is interrupted, the child is asked to checkpoint, then ended.

        Args:
            verb: which of the child's handlers.
            payload: its JSON argument.
            on_event: called here, in the caller's thread, for each progress event.
            wall_seconds: limit of the whole request.
            wall_setting: where a person has set that limit; for the error.

        Returns:
            The handler's JSON reply.

        Raises:
            PipelineError: what the handler raised, as the same class of `pipeline_lib.errors`.
            StopRequested: :meth:`stop` was called and the handler has checkpointed.
            WorkerError: the child died, was silent for too long, or took too long; all of its processes are gone.
        """
        with self._one_at_a_time:
            limit = wall_seconds, f" ({wall_setting})" if wall_setting else ""
            try:
                message = self._exchange(verb, payload, on_event, limit)
            except WorkerError:
                self._kill()
                raise
            except BaseException:
                self.close()
                raise
        if "error" in message:
            raise error_from_message(message["error"], str(self.log_path))
        reply: dict[str, Any] = message["reply"]
        return reply

    def stop(self) -> None:
        """Asks the running request to checkpoint and stop; from any thread; does nothing between requests."""
        self._stop_by = time.monotonic() + self.grace_seconds

    def close(self) -> None:
        """Ends the child and every process it started; while a request runs, it gets time to checkpoint."""
        process = self._process
        if process is None:
            return
        try:
            if self._busy:
                self._ask_to_leave(process)
        finally:
            self._kill()

    def _ask_to_leave(self, process: _Process) -> None:
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        process.terminate()  # while it still imports, nobody reads the pipe
        end = time.monotonic() + self.grace_seconds
        while process.poll() is None and time.monotonic() < end:
            with suppress(queue.Empty):
                message = self._messages.get(timeout=0.1)
                if message is None or (message["id"] == self._number and "event" not in message):
                    return  # it has checkpointed; what its interpreter tidies up afterwards can take half a minute

    def _exchange(
        self, verb: str, payload: Mapping[str, Any], on_event: Callable[[dict[str, Any]], None], limit: _Limit
    ) -> Message:
        self._stop_by, told_to_stop = math.inf, False
        self._number += 1
        process, messages = self._started()
        self._busy = True
        self._write(process, {"id": self._number, "verb": verb, "payload": dict(payload)})
        started = heard = time.monotonic()
        while True:
            message = self._next(process, messages, verb)
            now = time.monotonic()
            if not told_to_stop and self._stop_by < math.inf:
                told_to_stop = True
                self._write(process, {"stop": self._number})
            if message is None:
                self._check_time(verb, silent=now - heard, taken=now - started, limit=limit)
                continue
            heard = now
            if message["id"] != self._number:
                continue  # a thread of a former request speaks late
            if "event" not in message:
                self._busy = False
                return message
            self._check_time(verb, silent=0, taken=now - started, limit=limit)
            on_event(message["event"])

    def _check_time(self, verb: str, *, silent: float, taken: float, limit: _Limit) -> None:
        wall_seconds, setting = limit
        if silent > self.stall_seconds:
            why = f"no sign of life for {self.stall_seconds:g} s"
        elif taken > wall_seconds:
            why = f"not done after {wall_seconds:g} s{setting}"
        elif time.monotonic() > self._stop_by:
            why = f"did not stop within {self.grace_seconds:g} s"
        else:
            return
        raise WorkerError(f"{verb}: {why}; the worker was killed; see {self.log_path}")

    def _next(self, process: _Process, messages: _Messages, verb: str) -> Message | None:
        """The next message; None when there was none for a moment."""
        try:
            message = messages.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            # A process that the child forked may hold the pipe open: look at the child, too.
            if process.poll() is None:
                return None
            message = None
        if message is None:
            raise self._death(process, verb)
        return message

    def _death(self, process: _Process, verb: str) -> WorkerDiedError:
        ending = _how_it_ended(process)
        killed = process.returncode == -signal.SIGKILL
        if killed and kernel_kills() > self._kernel_kills:
            text = f"out of memory during {verb}: the kernel killed the worker; {MORE_MEMORY}; see {self.log_path}"
            return WorkerDiedError(text, killed=True, out_of_memory=True)
        return WorkerDiedError(f"the worker {ending} during {verb}; see {self._log_and_last_words()}", killed=killed)

    def _write(self, process: _Process, message: Message) -> None:
        assert process.stdin is not None
        # Where the child is gone or going, the wait for its messages tells how.
        with suppress(OSError, ValueError):
            process.stdin.write(encode(message))
            process.stdin.flush()

    def _started(self) -> tuple[_Process, _Messages]:
        if self._process is not None and self._process.poll() is None:
            return self._process, self._messages
        self._kill()
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._kernel_kills = kernel_kills()
        with self.log_path.open("ab") as stderr:
            process = self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **self._env},
                start_new_session=True,
            )
        messages = self._messages = queue.SimpleQueue()
        threading.Thread(target=_read, args=(process, messages), name="worker replies", daemon=True).start()
        return process, messages

    def _log_and_last_words(self) -> str:
        try:
            lines = self.log_path.read_bytes()[-4096:].decode(errors="replace").splitlines()
        except OSError:
            lines = []
        words = [line.strip() for line in lines if line.strip() and not _BAR.search(line)]
        return f"{self.log_path} ({words[-1][:300]})" if words else str(self.log_path)

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()


def _read(process: _Process, messages: _Messages) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            message = decode(line)
            if message is None:
                log.debug("the worker said: %r", line)
            else:
                messages.put(message)
    messages.put(None)


def _how_it_ended(process: _Process) -> str:
    try:
        code = process.wait(_LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        return "closed its pipe"
    if code == -signal.SIGKILL:
        return "was killed by SIGKILL (probably out of memory)"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
