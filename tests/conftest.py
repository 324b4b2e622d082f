"""What many tests share: a tiny base of the real classes, made once, and where real media lies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from pipeline_lib.steps.state import StateFolder

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def _one_thread_arithmetic() -> None:
    """Bits are compared; the number of threads must not change under a test."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipeline_lib.models.tiny import tiny_wan

    return tiny_wan(tmp_path_factory.mktemp("bases") / "tiny-wan")


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateFolder]:
    """A state folder, and one Prefect server for all tests of this process: both are told by its environment.

    It must not be imported as a fixture of another module, which would make a second one over the first.
    """
    from flows.environment import prepare_environment
    from pipeline_lib.steps.state import StateFolder

    with pytest.MonkeyPatch.context() as patch:
        folder = StateFolder.open(tmp_path_factory.mktemp("state"))
        patch.setenv("MANNERISM_STATE", str(folder.root))
        patch.setenv("OMP_NUM_THREADS", "1")  # the worker's arithmetic, as this process's own
        prepare_environment(folder, quiet=True)
        from prefect.testing.utilities import prefect_test_harness

        with prefect_test_harness(server_startup_timeout=600):
            yield folder


@pytest.fixture(scope="session")
def media_folder() -> Path:
    """Real clips that are not part of the repository; tests that need them skip where they are absent."""
    folder = Path(os.environ.get("MANNERISM_MEDIA", REPOSITORY.parent / "shared" / "media"))
    if not folder.is_dir():
        pytest.skip("no real media here; set MANNERISM_MEDIA")
    return folder
