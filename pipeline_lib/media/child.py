"""Child processes with limits: whatever a stranger's file does to a decoder, it does it there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from pipeline_lib.errors import MediaError
from pipeline_lib.media.limits import ChildLimits

_LAUNCHER = Path(__file__).with_name("limit_launcher.py")
_MAX_LINE = 4096
_MAX_LINES = 200_000
_FIX = "shorten or shrink it, or re-encode it as H.264 mp4"


class DecodingChild:
    """A running child whose standard output is read in pieces while its messages are collected.

    Args:
        command: the program's path and its arguments.
        limits: of memory and time.
        name: of the file, for messages.
        wanted: whether a line of standard error is kept; by default every line that is not empty.

    Attributes:
        messages: lines of standard error that are wanted, up to a cap, filled by a thread.
    """

    def __init__(
        self, command: Sequence[str], limits: ChildLimits, name: str, wanted: Callable[[str], bool] = bool
    ) -> None:
        self.messages: list[str] = []
        self._wanted = wanted
        self._limits, self._name, self._timed_out, self._stopped = limits, name, False, False
        launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), str(limits.memory_bytes), str(limits.cpu_seconds)]
        self._process = subprocess.Popen(
            [*launcher, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_clean_environment(),
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._collect_messages, daemon=True)
        self._reader.start()
        self._watchdog = threading.Timer(limits.wall_seconds, self._on_timeout)
        self._watchdog.daemon = True
        self._watchdog.start()

    def read(self, num_bytes: int) -> bytes:
        """Exactly that many bytes of output, or fewer at its end."""
        return self._stdout.read(num_bytes)

    def stop(self) -> None:
        """Ends the child early, because no more of its output is wanted."""
        self._stopped = True
        self.kill()

    def finish(self) -> None:
        """Waits for the end.

        Raises:
            MediaError: the child hit a limit, was killed by a signal, or failed.
        """
        return_code = self._process.wait()
        self._reader.join(timeout=10)
        self._watchdog.cancel()
        if self._stopped or return_code == 0:
            return
        raise MediaError(f"{self._name} cannot be decoded", got=self._reason(return_code), fix=_FIX)

    def kill(self) -> None:
        """Kills the child and whatever it started; safe to call at any time."""
        self._watchdog.cancel()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._stdout.close()

    def _reason(self, return_code: int) -> str:
        limits, text = self._limits, "\n".join(self.messages)
        if self._timed_out:
            return f"a decoder that was not done after {limits.wall_seconds:g} s"
        if return_code == -signal.SIGXCPU:
            return f"a decoder that used up its {limits.cpu_seconds} s of processor time"
        if "Cannot allocate memory" in text or "MemoryError" in text:
            return f"a decoder that needs more than {limits.memory_bytes / 1024**2:.0f} MiB of memory"
        if return_code < 0:
            return f"a decoder killed by {_signal_name(-return_code)}"
        return f"a decoder that failed ({self._last_message() or f'exit code {return_code}'})"

    def _last_message(self) -> str:
        marked = [line for line in self.messages if "[error]" in line or "[fatal]" in line]
        return (marked or self.messages or [""])[-1].strip()[:300]

    def _on_timeout(self) -> None:
        self._timed_out = True
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _collect_messages(self) -> None:
        stream = self._process.stderr
        assert stream is not None
        with stream:
            while line := stream.readline(_MAX_LINE):
                text = line.decode("utf-8", "replace").rstrip("\r\n")
                if len(self.messages) < _MAX_LINES and self._wanted(text):
                    self.messages.append(text)

    @property
    def _stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout


@contextmanager
def decoding_child(
    command: Sequence[str], limits: ChildLimits, name: str, wanted: Callable[[str], bool] = bool
) -> Iterator[DecodingChild]:
    """A child that is gone when the block is left, however it is left.

    Args:
        command: the program's path and its arguments.
        limits: of memory and time.
        name: of the file, for messages.
        wanted: which lines of its messages to keep; all that are not empty by default.

    Yields:
        The running child; call `finish` or `stop` before leaving the block.
    """
    child = DecodingChild(command, limits, name, wanted)
    try:
        yield child
    finally:
        child.kill()


def run_to_end(command: Sequence[str], limits: ChildLimits, name: str) -> bytes:
    """The whole standard output of a limited child.

    Args:
        command: the program's path and its arguments.
        limits: of memory and time.
        name: of the file, for messages.

    Returns:
        All that it wrote.

    Raises:
        MediaError: the child hit a limit, was killed by a signal, or failed.
    """
    with decoding_child(command, limits, name) as child:
        output = child.read(-1)
        child.finish()
    return output


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _clean_environment() -> dict[str, str]:
    """No proxy, no credentials, no user's start-up files reach a decoder."""
    kept = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "SYSTEMROOT")
    return {key: os.environ[key] for key in kept if key in os.environ} | {"LC_ALL": "C"}
