"""Kills of a deployed run under `mannerism up`: two of those that `python -m benchmarks.kills` makes. Slow."""

from __future__ import annotations

import pytest

from benchmarks.kills import run

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]
SEED = 20  # kills both when three quarters of the run are over


def test_a_deployed_run_survives_kills_of_its_process_and_of_the_server() -> None:
    done = run(2, seed=SEED, victims=("flow-process", "prefect-server"))
    assert done["good"] == 2, done["rounds"]
