"""The tracker for runs without MLflow."""
# ruff: noqa: ARG002 - it takes everything and uses nothing

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline_lib.records import ClipRecord
from pipeline_lib.tracking.tracker import Metric, RunStatus


class NullTracker:
    """Writes nothing down."""

    run_id = ""
    url = ""

    def find_run(self, digest: str) -> str:
        """Nothing is ever there."""
        return ""

    def start_run(self, name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> str:
        """No run."""
        return ""

    def child(self, name: str, params: Mapping[str, Any] | None = None) -> NullTracker:
        """Itself."""
        return self

    def log_metrics(self, metrics: Sequence[Metric]) -> None:
        """Nothing."""

    def log_clip(self, clip: ClipRecord) -> None:
        """Nothing."""

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Nothing."""

    def log_image(self, path: Path, key: str, step: int) -> None:
        """Nothing."""

    def log_concept(
        self, folder: Path, name: str, kind: str, metrics: Mapping[str, float], *, register: bool, follows: str = ""
    ) -> str:
        """No model."""
        return ""

    def link(self, runs: Sequence[str], tag: str, value: str) -> None:
        """Nothing."""

    def end(self, status: RunStatus = "FINISHED") -> None:
        """Nothing."""
