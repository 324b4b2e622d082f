"""What many tests share: a tiny base of the real classes, made once, and where real media lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

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
def media_folder() -> Path:
    """Real clips that are not part of the repository; tests that need them skip where they are absent."""
    folder = Path(os.environ.get("MANNERISM_MEDIA", REPOSITORY.parent / "shared" / "media"))
    if not folder.is_dir():
        pytest.skip("no real media here; set MANNERISM_MEDIA")
    return folder
