"""What crosses the pipes between parent and worker child: one JSON object per line.

::

    parent → child   {"id": 1, "verb": "train", "payload": {…}}     one at a time
                     {"stop": 1}                                    ask request 1 to checkpoint and stop
                     end of file                                    the parent is gone: checkpoint and exit
    child → parent   {"id": 1, "event": {…}}                        any number, while the request runs
                     {"id": 1, "reply": {…}} | {"id": 1, "error": {…}}
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pipeline_lib import errors
from pipeline_lib.errors import InputError, PipelineError, ResourceError, WorkerError

Message = dict[str, Any]
Emit = Callable[[dict[str, Any]], None]
StopFlag = Callable[[], bool]
Handler = Callable[[dict[str, Any], Emit, StopFlag], dict[str, Any]]

MORE_MEMORY = "choose a smaller size, fewer frames, a smaller micro-batch or another device, then run again"
# torch words it as RuntimeError where an allocator other than CUDA's gives up.
_OUT_OF_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def encode(message: Message) -> bytes:
    """One line of the protocol."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message | None:
    """The message in a line; None where a library wrote something of its own."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) and ("id" in message or "stop" in message) else None


def error_to_message(error: Exception, verb: str) -> Message:
    """An exception as data: the nearest class of `pipeline_lib.errors`, and what it says."""
    if isinstance(error, InputError):
        fields = {"what": error.what, "got": error.got, "expected": error.expected, "fix": error.fix}
        return {"type": _public_name(error), "fields": fields}
    if isinstance(error, PipelineError):
        return {"type": _public_name(error), "text": str(error)}
    if _is_out_of_memory(error):
        return {
            "type": ResourceError.__name__,
            "text": f"out of memory during {verb}: {str(error) or type(error).__name__}; {MORE_MEMORY}",
        }
    return {"type": WorkerError.__name__, "text": f"{verb} failed: {type(error).__name__}: {error}"}


def error_from_message(message: Message, log_path: str) -> PipelineError:
    """The exception that :func:`error_to_message` described, ready to be raised.

    Args:
        message: what came over the pipe.
        log_path: where the traceback is; named where the fault is ours.

    Returns:
        An instance of the same class of `pipeline_lib.errors`.
    """
    kind = getattr(errors, str(message.get("type")), WorkerError)
    assert issubclass(kind, PipelineError)
    if issubclass(kind, InputError):
        return kind(**message["fields"])
    text = str(message.get("text", "the worker failed"))
    return kind(f"{text}; the traceback is in {log_path}" if kind is WorkerError else text)


def _public_name(error: PipelineError) -> str:
    # A module may have subclasses of its own; the parent knows only the tree in errors.py.
    return next(kind.__name__ for kind in type(error).__mro__ if getattr(errors, kind.__name__, None) is kind)


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY_WORDS)
