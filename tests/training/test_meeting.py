"""Processes of a stage that meet: who waits in vain leaves at once, with the other's error."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline_lib.errors import ResourceError
from pipeline_lib.training.ranks import PeerLostError, Ranks, joined


def after(looks: int, error: Exception) -> Callable[[], None]:
    """What is called while one waits: raises at the given call, as when the other has died by then."""
    left = iter(range(looks))

    def look() -> None:
        if next(left, None) is None:
            raise error

    return look


def test_who_waits_for_one_that_died_leaves_with_its_error(tmp_path: Path) -> None:
    started = time.monotonic()
    look = after(3, ResourceError("process 2 of 2: out of memory"))
    with (
        pytest.raises(ResourceError, match="process 2 of 2: out of memory"),
        joined(Ranks(0, 2), tmp_path / "meeting", torch.device("cpu"), look),
    ):
        pytest.fail("the other never came")
    assert time.monotonic() - started < 60, "torch itself would wait for an hour"
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer"), PeerLostError),
        (torch.distributed.DistNetworkError("gone"), PeerLostError),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), RuntimeError),
        (torch.OutOfMemoryError("2 GiB"), torch.OutOfMemoryError),
    ],
)
def test_only_a_lost_exchange_is_taken_for_a_lost_process(error: Exception, kind: type, tmp_path: Path) -> None:
    """A base in parts is fetched in the midst of a pass, whose errors are of all kinds."""
    with pytest.raises(kind) as raised, joined(Ranks(0, 1), tmp_path / "meeting", torch.device("cpu")):
        raise error
    assert type(raised.value) is kind
    assert not torch.distributed.is_initialized()
