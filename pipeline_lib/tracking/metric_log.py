"""Metrics of one MLflow run: gathered, and each step once whatever is repeated."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from pipeline_lib.tracking import names
from pipeline_lib.tracking.tracker import Metric

_FLUSH_SECONDS = 5.0
_FLUSH_COUNT = 500
_MLFLOW_BATCH = 1000


class MetricLog:
    """Writes metrics in batches; what MLflow already has is the only offset, so a kill cannot part the two.

    Args:
        client: MLflow's client.
        run_id: of the run.
        resumed: the run may have metrics already.
    """

    def __init__(self, client: Any, run_id: str, *, resumed: bool) -> None:
        self._client, self._run_id, self._resumed = client, run_id, resumed
        self._steps: dict[str, set[int]] = {}
        self._waiting: list[Any] = []
        self._flushed = time.monotonic()

    def add(self, metrics: Sequence[Metric]) -> None:
        """Takes metrics; writes when there are many or some time has passed."""
        from mlflow.entities import Metric as Entry

        now = int(time.time() * 1000)
        for name, value, step in metrics:
            key = names.key(name)
            steps = self._logged_steps(key)
            if step not in steps:
                steps.add(step)
                self._waiting.append(Entry(key, float(value), now, step))
        if len(self._waiting) >= _FLUSH_COUNT or time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what is gathered."""
        while self._waiting:
            self._client.log_batch(self._run_id, metrics=self._waiting[:_MLFLOW_BATCH])
            del self._waiting[:_MLFLOW_BATCH]
        self._flushed = time.monotonic()

    def _logged_steps(self, key: str) -> set[int]:
        if key not in self._steps:
            history = self._client.get_metric_history(self._run_id, key) if self._resumed else []
            self._steps[key] = {int(entry.step) for entry in history}
        return self._steps[key]
