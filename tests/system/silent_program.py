"""A run that takes its turn at training and never ends."""

from __future__ import annotations

import time

from prefect import flow

from tasks.turn import turn


@flow
def silent() -> None:
    with turn():
        time.sleep(3600)


if __name__ == "__main__":
    silent()
