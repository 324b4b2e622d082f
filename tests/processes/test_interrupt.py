"""A stop that was asked for happens, even where a library swallowed the interrupt."""

import signal
from contextlib import suppress

import pytest

from pipeline_lib.processes.interrupt import on_signal, raise_if_asked


def test_a_swallowed_interrupt_is_raised_at_the_next_pause_and_only_once() -> None:
    raise_if_asked()
    before = signal.signal(signal.SIGINT, on_signal)
    try:
        with suppress(KeyboardInterrupt):  # what the library did
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(KeyboardInterrupt):
        raise_if_asked()
    raise_if_asked()
