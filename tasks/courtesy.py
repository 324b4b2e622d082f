"""What is only shown to people must not end a run: where Prefect's server is away for a while, it is left out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.exceptions import PrefectException

log = logging.getLogger(__name__)


@contextmanager
def courtesy(what: str) -> Iterator[None]:
    """Leaves out what the server does not take.

    Args:
        what: is shown; for the warning.

    Yields:
        None: once.
    """
    try:
        yield
    except (httpx.HTTPError, PrefectException, OSError) as error:
        log.warning("%s could not be shown: %s", what, error or type(error).__name__)
