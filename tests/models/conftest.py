from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline_lib.models.load import load_base
from pipeline_lib.models.wan import WanBase


@pytest.fixture
def own_folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "base"))


@pytest.fixture
def base(tiny_folder: Path) -> WanBase:
    loaded = load_base(str(tiny_folder))
    assert isinstance(loaded, WanBase)
    return loaded
