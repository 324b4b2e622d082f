"""A Ctrl-C that is not lost, though libraries now and then swallow the interrupt that Python raises inside them."""

from __future__ import annotations

import signal
from types import FrameType

_asked = False


def on_signal(number: int, frame: FrameType | None) -> None:
    """The handler of SIGINT and SIGTERM: notes the wish, then raises as Python itself does.

    Args:
        number: of the signal.
        frame: where it came.

    Raises:
        KeyboardInterrupt: always.
    """
    global _asked  # noqa: PLW0603 - a process has one such wish
    _asked = True
    signal.default_int_handler(number, frame)


def raise_if_asked() -> None:
    """For places between two pieces of work.

    Raises:
        KeyboardInterrupt: a stop was asked for and something swallowed it; once.
    """
    global _asked  # noqa: PLW0603
    if _asked:
        _asked = False
        raise KeyboardInterrupt
