"""Turns at training, over all machines of a Prefect server."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import httpx
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import PrefectException

from pipeline_lib.errors import ResourceError

LIMIT = "gpu"
LEASE_SECONDS = 60  # how long a killed holder's slot stays taken; a server takes nothing shorter
PAUSES = (1, 2, 4, 8, 16, 32)  # seconds


@contextmanager
def turn() -> Iterator[None]:
    """One of the server's slots of that name while inside, waited for; at once where no server is.

    A server that goes away meanwhile ends no training that goes well: on one device the operating system's lock still
    holds, and a slot that could not be given back lapses with its lease.

    Yields:
        None: once, with the slot held.

    Raises:
        ResourceError: the server has no such limit: without one, all would train at once.
    """
    if not os.environ.get("PREFECT_API_URL"):
        yield
        return
    slot = _slot()
    try:
        yield
    finally:
        with suppress(httpx.HTTPError, PrefectException):
            slot.__exit__(None, None, None)


def _slot() -> AbstractContextManager[None]:
    """A slot, held; asked for again where the server was too busy to answer (SQLite under load says 503)."""
    for pause in PAUSES:
        with suppress(ConcurrencySlotAcquisitionError):
            return _entered()
        time.sleep(pause)
    return _entered()


def _entered() -> AbstractContextManager[None]:
    slot = concurrency(LIMIT, lease_duration=LEASE_SECONDS, strict=True, raise_on_lease_renewal_failure=False)
    try:
        slot.__enter__()
    except ConcurrencySlotAcquisitionError as error:
        if error.__cause__ is not None:  # no answer, or a refusal; a limit that is missing is neither
            raise
        raise ResourceError(
            f"the server has no concurrency limit {LIMIT!r}; make it: mannerism up, or python -m deployments.apply"
        ) from error
    return slot
