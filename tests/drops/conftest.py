from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline_lib.drops.folder_inbox import FolderInbox
from pipeline_lib.drops.intake import Intake, Outcome
from pipeline_lib.drops.ledger import Ledger
from pipeline_lib.run_config import RunConfig
from tests.steps.tiny import small_clip

SETTLE = 0.0


@dataclass
class MemoryDispatcher:
    """Keeps what was submitted; like Prefect it gives one key one run."""

    configs: dict[str, RunConfig] = field(default_factory=dict)
    states: dict[str, Outcome] = field(default_factory=dict)
    reachable: bool = True

    def submit(self, key: str, config: RunConfig) -> str:
        if not self.reachable:
            raise ConnectionError("the server cannot be reached")
        self.configs.setdefault(f"run-{key}", config)
        return f"run-{key}"

    def outcomes(self, runs: Sequence[str]) -> Mapping[str, Outcome]:
        if not self.reachable:
            raise ConnectionError("the server cannot be reached")
        return {run: self.states.get(run, Outcome()) for run in runs if run in self.configs}

    def retry(self, run: str) -> bool:
        if not self.reachable:
            raise ConnectionError("the server cannot be reached")
        over = self.states.get(run) in (Outcome("crashed"), Outcome("stopped"))
        if over:
            self.states[run] = Outcome()
        return over


@dataclass
class Service:
    """An inbox with its intake; `again` is the same after a death."""

    root: Path
    dispatcher: MemoryDispatcher
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.again()

    def again(self) -> None:
        self.inbox = FolderInbox(self.root, settle_seconds=SETTLE, patience_seconds=3600)
        self.ledger = Ledger(self.root / "ledger.db")
        self.intake = Intake(self.inbox, self.ledger, self.dispatcher, RunConfig(), self.told.append)

    def drop(self, name: str, clip: Path, concept: str | None = None) -> Path:
        """Renames a finished folder into the inbox."""
        made = self.root / f"making-{name}"
        made.mkdir()
        (made / clip.name).write_bytes(clip.read_bytes())
        if concept is not None:
            (made / "concept.yaml").write_text(concept)
        return made.rename(self.inbox.inbox / name)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two clips of different bytes."""
    folder = tmp_path_factory.mktemp("clips")
    return small_clip(folder / "red.mp4"), small_clip(folder / "longer.mp4", num_frames=24)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path / "drops", MemoryDispatcher())
